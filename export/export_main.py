"""Exports the trained model of a work directory for TF Serving.

python export/export_main.py --workdir=runs/digits-miwae-m8-k8-seed0 --export_dir=models/digits
"""

import os
import pathlib
import sys

# TensorFlow reports on its libraries at each start; what matters comes as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A program that is run as a file has its own folder on the path, not the repository's.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import app, flags

from iwae_zoo import saved_model

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory that train_main.py has left.", required=True)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder of the served model; gets a new version.", required=True)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1000, "Particles per row of the default signature.")
_MAX_NUM_SAMPLES = flags.DEFINE_integer("max_num_samples", 10_000, "Most particles per row of any request.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the default signature's particles.")


def main(argv):
    """Exports; the exit status is not 0 if there is no new version."""
    if len(argv) > 1:
        sys.exit(f"export_main: unexpected arguments {argv[1:]}; flags are written --name=value.")
    numbers = (_NUM_SAMPLES.value, _MAX_NUM_SAMPLES.value)
    try:
        version = saved_model.export_run(_WORKDIR.value, _EXPORT_DIR.value, *numbers, seed=_SEED.value)
    except (ValueError, OSError) as error:
        sys.exit(f"export_main: {error}")
    print(f"Exported to {version}.")


if __name__ == "__main__":
    app.run(main)
