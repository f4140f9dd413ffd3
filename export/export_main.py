"""Exports the trained model of a work directory for TF Serving; `iwae_zoo.programs.export` is what it does.

python export/export_main.py --workdir=runs/digits-miwae-m8-k8-seed0 --export_dir=models/digits
"""

import pathlib
import sys

# A program that is run as a file has its own folder on the path, not the repository's.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import iwae_zoo_console

if __name__ == "__main__":
    iwae_zoo_console.start("export", "export_main", sys.argv[1:])
