"""Exports the trained model of a work directory for TF Serving.

python export/export_main.py --workdir=runs/digits-miwae-m8-k8-seed0 --export_dir=models/digits
"""

import functools

from absl import flags

import iwae_zoo_console as console
from iwae_zoo import saved_model

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Work directory that train_main.py has left.", required=True, flag_values=_FLAGS
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Folder of the served model; gets a new version.", required=True, flag_values=_FLAGS
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 1000, "Particles per row of the default signature.", flag_values=_FLAGS
)
_MAX_NUM_SAMPLES = flags.DEFINE_integer(
    "max_num_samples", 10_000, "Most particles per row of any request.", flag_values=_FLAGS
)
_TEMPERATURES = flags.DEFINE_integer(
    "num_temperatures", None, "Path of the annealed signatures. Default: as likelihood's.", flag_values=_FLAGS
)
_CHAINS = flags.DEFINE_integer(
    "num_chains", None, "Chains per row of the annealed signatures. Default: as likelihood's.", flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the default signature's particles.", flag_values=_FLAGS)


def main(name):
    """Exports; the exit status is not 0 if there is no new version."""
    numbers = (_NUM_SAMPLES.value, _MAX_NUM_SAMPLES.value)
    try:
        walked = {"num_temperatures": _TEMPERATURES.value, "num_chains": _CHAINS.value}
        version = saved_model.export_run(_WORKDIR.value, _EXPORT_DIR.value, *numbers, seed=_SEED.value, **walked)
    except (ValueError, OSError) as error:
        console.fail(name, error)
    print(f"Exported to {version}.")


run = functools.partial(console.run, main, _FLAGS, __doc__)
