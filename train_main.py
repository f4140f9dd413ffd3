"""Trains an importance-weighted autoencoder; `iwae_zoo.programs.train` is what it does.

python train_main.py --objective=miwae --k=8 --m=8
"""

import sys

import iwae_zoo_console

if __name__ == "__main__":
    iwae_zoo_console.start("train", "train_main", sys.argv[1:])
