"""Evaluates a trained model; `iwae_zoo.programs.evaluate` is what it does.

python evaluate_main.py --model=runs/digits-miwae-m8-k8-seed0/model.keras --num_samples=5000 --ais=20
"""

import sys

import iwae_zoo_console

if __name__ == "__main__":
    iwae_zoo_console.start("evaluate", "evaluate_main", sys.argv[1:])
