"""Serves an exported model on this machine; `iwae_zoo_serving.programs.serve` is what it does.

python export/serve_main.py --model_base_path=models/digits --model_name=digits
"""

import pathlib
import sys

# A program that is run as a file has its own folder on the path, not the repository's.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import iwae_zoo_console

if __name__ == "__main__":
    iwae_zoo_console.start("serve", "serve_main", sys.argv[1:])
