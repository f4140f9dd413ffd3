"""What the encoder's posterior looks like: a two-dimensional latent, as in the article's other figure.

    python studies/posterior_main.py --workdir=runs/posterior

Trains an IWAE and a VAE whose latent has two dimensions. For some test examples it draws the true posterior on a grid,
the encoder's q(z | x), and draws of q^IS, which are the encoder's resampled by their importance weights.
"""

import functools
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

import iwae_zoo_console as console

with console.quiet():
    import tensorflow as tf

    from iwae_zoo import figures, particles, presets, resampling, training
    from iwae_zoo._files import load_model
    from studies import cells

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string("workdir", "runs/posterior", "Folder of the study.", flag_values=_FLAGS)
_DATASET = flags.DEFINE_string("dataset", "digits", "As in train_main.py.", flag_values=_FLAGS)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=_FLAGS)
_PRESET = flags.DEFINE_string(
    "preset", "plane", "As in train_main.py; its latent must have two dimensions.", flag_values=_FLAGS
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Passes over the training set. Default: the preset's.", flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "Of training and of the draws.", lower_bound=0, flag_values=_FLAGS)
_EXAMPLES = flags.DEFINE_integer(
    "examples", 6, "Test examples to show, the first ones.", lower_bound=1, flag_values=_FLAGS
)
_PARTICLES = flags.DEFINE_integer(
    "particles", 50, "Particles that each resampled draw is chosen from.", lower_bound=1, flag_values=_FLAGS
)
_DRAWS = flags.DEFINE_integer("draws", 200, "Resampled draws for each example.", lower_bound=1, flag_values=_FLAGS)
_GRID = flags.DEFINE_integer("grid", 200, "Points on each axis of the grid.", lower_bound=10, flag_values=_FLAGS)
_EXTENT = flags.DEFINE_float("extent", 3.5, "The grid reaches from minus to plus this.", flag_values=_FLAGS)
_WORKERS = flags.DEFINE_integer(
    "workers", 1, "Models trained at once, each in a process of its own.", lower_bound=1, flag_values=_FLAGS
)

_MODELS: dict[str, dict[str, Any]] = {
    "IWAE, L_50": {"objective": "iwae", "m": 1, "k": 50},
    "VAE": {"objective": "elbo", "m": 50, "k": 1},
}


def densities(model, x, axis):
    """Normalised p(z | x) and q(z | x) of one example on the grid `axis` x `axis`: two arrays [G, G], z_2 first."""
    second, first = np.meshgrid(axis, axis, indexing="ij")
    z = tf.constant(np.stack([first, second], axis=-1).reshape(-1, 1, 2), tf.float32)  # [G G, 1, 2]
    log_joint = particles.log_joint(model.decoder, model.prior, x[np.newaxis], z).numpy()
    log_q = model.encoder.posterior(x[np.newaxis]).log_prob(z).numpy()
    images = [np.exp(log - log.max()).reshape(len(axis), -1) for log in (log_joint, log_q)]
    return [image / image.sum() for image in images]


def main(name):
    """Trains both models, if need be, and draws the figure."""
    workdir = pathlib.Path(_WORKDIR.value)
    shared: dict[str, Any] = {
        "dataset": _DATASET.value,
        "data_dir": _DATA_DIR.value,
        "preset": _PRESET.value,
        "epochs": _EPOCHS.value,
    }
    configs = {name: training.Config(**parts, **shared, seed=_SEED.value) for name, parts in _MODELS.items()}
    with cells.errors_in_one_line(name):
        size = presets.get(_PRESET.value).latent_size
        if size != 2:
            raise ValueError(f"the latent of preset {_PRESET.value!r} has {size} dimensions, not 2.")
        cells.run_grid(configs, workdir, _WORKERS.value)
        x = cells.test_set(configs["VAE"], workdir)[: _EXAMPLES.value]
        axis = np.linspace(-_EXTENT.value, _EXTENT.value, _GRID.value)
        panels: dict[str, list] = {}
        for name, config in configs.items():
            model = load_model(cells.folder(config, workdir) / "model.keras")
            draws, ess = resampling.sample_posterior(model, x, _DRAWS.value, _PARTICLES.value, _SEED.value)
            print(f"{name}: effective number of {_PARTICLES.value} particles {np.round(ess, 1)}")
            panels[name] = []
            for row, example in enumerate(x):
                posterior, encoder = densities(model, example, axis)
                panels[name].append({"x": example, "posterior": posterior, "encoder": encoder, "draws": draws[:, row]})
        title = f"{pathlib.Path(_DATASET.value).stem}, latent in two dimensions, seed {_SEED.value}"
        figure = figures.posterior_grid(panels, (-_EXTENT.value, _EXTENT.value), title)
        figures.write(figure, workdir / "posterior.png")


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("posterior_main", sys.argv[1:])
