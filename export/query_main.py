"""Asks a served model about every row of a file; `iwae_zoo_serving.programs.query` is what it does.

python export/query_main.py --input=x.npy --model_name=digits --output=results.csv
"""

import pathlib
import sys

# A program that is run as a file has its own folder on the path, not the repository's.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import iwae_zoo_console

if __name__ == "__main__":
    iwae_zoo_console.start("query", "query_main", sys.argv[1:])
