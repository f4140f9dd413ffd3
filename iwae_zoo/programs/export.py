"""Exports the trained model of a work directory, or of a preset, for TF Serving.

python export/export_main.py --preset=digits_miwae --export_dir=models/digits
python export/export_main.py --workdir=runs/digits-miwae-m8-k8-seed0 --export_dir=models/digits
"""

import functools

from absl import flags

import iwae_zoo_console as console
from iwae_zoo import presets, saved_model
from iwae_zoo.programs import chunks, trained

_FLAGS = console.flag_values()
_WORKDIR, _PRESET = trained.define(_FLAGS, "workdir", "Work directory that train_main.py has left.")
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
_PARTICLE_CHUNK = chunks.define(_FLAGS, "by --num_samples, at most 2500")
_TILE_ROWS = chunks.define_tile_rows(_FLAGS, 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the default signature's particles.", flag_values=_FLAGS)


def main(name):
    """Exports; the exit status is not 0 if there is no new version."""
    numbers = (_NUM_SAMPLES.value, _MAX_NUM_SAMPLES.value)
    try:
        trained.check(_WORKDIR, _PRESET)
        options = {"num_temperatures": _TEMPERATURES.value, "num_chains": _CHAINS.value, "seed": _SEED.value}
        options |= {"tile_rows": _TILE_ROWS.value, "particle_chunk": _PARTICLE_CHUNK.value}
        if _PRESET.value is None:
            version = saved_model.export_run(_WORKDIR.value, _EXPORT_DIR.value, *numbers, **options)
        else:
            card = presets.trained.public(presets.card(_PRESET.value))
            model = presets.load(_PRESET.value)
            version = saved_model.export(model, _EXPORT_DIR.value, *numbers, **options, card=card)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        console.fail(name, error)
    print(f"Exported to {version}.")


run = functools.partial(console.run, main, _FLAGS, __doc__)
