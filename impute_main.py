"""Fills the holes of a table or an array; `iwae_zoo.programs.impute` is what it does.

python impute_main.py --model=runs/table-iwae-m1-k20-seed0/model.keras --input=holes.csv --output=filled.csv
"""

import sys

import iwae_zoo_console

if __name__ == "__main__":
    iwae_zoo_console.start("impute", "impute_main", sys.argv[1:])
