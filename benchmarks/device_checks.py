"""What a device is asked, so that its answers can be held against another's: the questions of `devices.py`.

A question is a function of a `Place` that returns arrays by name. Weights, examples and random numbers are the same
everywhere, so that answers differ by rounding alone; in float64 too, where random numbers are drawn as float32.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from iwae_zoo import annealing, data, likelihood, objectives, presets, resampling, saved_model
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.distributions import noise
from iwae_zoo.testing import LinearGaussian

__all__ = ["QUICK", "Place", "Sizes", "questions", "start_weights"]

# XLA takes seconds for each on a card: one of each kind of estimator.
_COMPILED = ("iwae", "piwae", "dreg", "rws", "vimco")
_LEARNING_RATE = 1e-3


class Sizes(NamedTuple):
    """How much is asked.

    Attributes:
      preset: name of a preset for images.
      data_shape: shape of one x.
      examples: int, rows of a question.
      num_samples: int, particles for log p(x).
      objectives: names, each for its gradients.
      annealing: dict, budget of `annealing.estimate_log_prob`.
    """

    preset: str = "rainforth"
    data_shape: tuple[int, ...] = (28, 28, 1)
    examples: int = 20
    num_samples: int = 2000
    objectives: tuple[str, ...] = objectives.names()
    annealing: dict[str, int] = {}  # noqa: RUF012


QUICK = Sizes(
    "small", (3, 3, 1), 4, 50, ("iwae", "dreg"), {"num_temperatures": 4, "num_chains": 16, "num_leapfrog_steps": 1}
)


class Place(NamedTuple):
    """Where questions are asked.

    Attributes:
      strategy: `tf.distribute.Strategy`.
      sizes: `Sizes`.
      folder: path that all places share, for files that one writes and another reads.
      name: str, the folder's part for this place.
      other: str, the name of the place whose files it reads.
      dtype: "float32" or "float64".
    """

    strategy: Any
    sizes: Sizes
    folder: Any
    name: str = "cpu"
    other: str = "cpu"
    dtype: str = "float32"

    @property
    def x(self):
        """Binary float array [B, ...], the same everywhere."""
        drawn = np.random.default_rng(0).random((self.sizes.examples, *self.sizes.data_shape)) < 0.3
        return drawn.astype(self.dtype)

    def build(self, objective="iwae", mixed_precision=None, **options):
        """The model, with weights that are the same everywhere, compiled for descent that forgives rounding."""
        with self.strategy.scope():
            model = presets.build(
                self.sizes.preset,
                data_shape=self.sizes.data_shape,
                objective=objectives.get(objective, m=2, k=4),
                mixed_precision=mixed_precision,
            )
            model.set_weights(start_weights(model))
            # Not Adam, whose steps do not get smaller where a gradient is little but rounding.
            descent = [keras.optimizers.SGD(_LEARNING_RATE) for _ in range(2)]
            model.compile(*descent, **options)
        return model

    def files(self, name):
        """Where a place keeps what it writes for the others."""
        return pathlib.Path(self.folder) / "files" / name


def start_weights(model):
    """Weights by their shapes alone, of the size that networks start from, biases included: list of arrays."""
    rng = np.random.default_rng(1)
    sizes = [(w.shape, np.sqrt(w.shape[0] if w.ndim > 1 else 100.0)) for w in model.get_weights()]
    return [(rng.normal(size=shape) / scale).astype(np.float32) for shape, scale in sizes]


@contextlib.contextmanager
def in_dtype(dtype):
    """Scope in which networks compute in a type; random numbers are those of float32."""
    if dtype == "float32":
        yield
        return
    policy, uniform = keras.config.dtype_policy(), noise.uniform

    def rounded(rows, size, seed, first_row=0, dtype=tf.float32):
        return tf.cast(uniform(rows, size, seed, first_row, tf.float32), dtype)

    floatx = keras.config.floatx()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    noise.uniform = rounded
    try:
        yield
    finally:
        noise.uniform = uniform
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def gradients(objective, place, compiled=False, mixed_precision=None, allowed=False):
    """Of both networks, and the log weights.

    Args:
      objective: name.
      place: `Place`.
      compiled: bool, whether XLA compiles them; its random numbers are others.
      mixed_precision: as in `presets.build`.
      allowed: bool, whether in TensorFloat-32.
    """
    # XLA looks at TensorFloat-32 when it compiles: each question has a function of its own.
    with in_dtype(place.dtype), tensor_float_32(allowed):
        model = place.build(objective, mixed_precision)
        compute = (
            tf.function(model.compute_gradients, autograph=False, jit_compile=True)
            if compiled
            else model.compute_gradients
        )
        computed = compute(tf.constant(place.x), tf.constant([0, 1]))
        sides = {f"encoder {i}": g for i, g in enumerate(computed.encoder)}
        sides |= {f"decoder {i}": g for i, g in enumerate(computed.decoder)}
        return {**{name: g.numpy() for name, g in sides.items()}, "log_weights": computed.log_weights.numpy()}


def log_prob(place):
    """By importance samples. Nobody switches TensorFloat-32 off here: the library has to."""
    with in_dtype(place.dtype):
        answer = likelihood.estimate_log_prob(place.build(), place.x, place.sizes.num_samples)
    return {"value": answer.log_prob}


def exact_model():
    """A model of which TensorFloat-32 would make something else, and its x [B, 50]."""
    exact = LinearGaussian.random(latent_size=10, data_size=50, stddev=0.1)
    return exact, exact.sample(8).astype(np.float32)


def closed_form(place):
    """A model whose encoder is the posterior: every particle has the exact log p(x) as its weight."""
    del place
    exact, x = exact_model()
    answer = likelihood.estimate_log_prob(exact.model("iwae"), x, 100)
    return {"value": answer.log_prob, "expected": exact.log_prob(x.astype(np.float64))}


def annealed_closed_form(place):
    """The same annealed, with the library's own budget: a smaller one leaves some chains where they start."""
    del place
    exact, x = exact_model()
    x = x[:2]
    answer = annealing.estimate_log_prob(exact.model("iwae"), x, verbose=0)
    expected = exact.log_prob(x.astype(np.float64))
    return {"value": answer.log_prob, "standard_error": answer.standard_error, "expected": expected}


def annealed(place):
    """Chains turn another way after the least rounding: the answers of two places agree to their standard errors."""
    answer = annealing.estimate_log_prob(place.build(), place.x[:4], **place.sizes.annealing, verbose=0)
    return {"value": answer.log_prob, "standard_error": answer.standard_error}


def resampled(place):
    """Posterior draws [S, B, D]; rounding may choose another particle now and then."""
    z, ess = resampling.sample_posterior(place.build(), place.x, num_samples=8, num_particles=50)
    return {"draws": z, "ess": ess}


def trained(place, compiled=False, steps_per_execution=1, mixed_precision=None):
    """How far training moves the weights: two epochs in batches of five; the last has one example."""
    model = place.build("piwae", mixed_precision, jit_compile=compiled, steps_per_execution=steps_per_execution)
    batches = tf.data.Dataset.from_tensor_slices(np.concatenate([place.x] * 6)[:16]).batch(5)
    with tensor_float_32(False):  # `fit` is as the process has it.
        model.fit(batches, epochs=2, shuffle=False, verbose=0)
    moved = [np.ravel(w - s) for w, s in zip(model.get_weights(), start_weights(model), strict=True)]
    return {"moved": np.concatenate(moved)}


def several_steps(place):
    """As many steps for each return to Python as an epoch has, against one."""
    return {"moved": trained(place, steps_per_execution=4)["moved"], "expected": trained(place)["moved"]}


def made_on_device(place):
    """An epoch's batches of bytes that lie on the device, and the host's: as they are, as quotients, and drawn."""
    del place
    values = np.arange(4096, dtype=np.uint8).reshape(64, 64)
    made: dict[str, list] = {"value": [], "expected": []}
    for kind in ("byte", "binary", "intensity"):
        source = data.Dataset("every byte", values, values, values, kind)
        deferred, steps = source.training_batches(10, seed=0, on_device=True), source.steps_per_epoch(10)
        make = tf.function(deferred.make, input_signature=[deferred.plans.element_spec], autograph=False)
        made["value"] += map(make, deferred.plans.take(steps))
        made["expected"] += source.training_batches(10, seed=0).take(steps)
    return {name: np.concatenate(batches) for name, batches in made.items()}


def written(place):
    """An exported model and a .keras file, read again where they were written; they stay for the others."""
    model, folder = place.build(), place.files(place.name)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    count = place.sizes.num_samples
    saved_model.export(model, folder / "served", num_samples=count, max_num_samples=count, **place.sizes.annealing)
    return _answers(place, folder)


def read(place):
    """The same of files that another place has written."""
    return _answers(place, place.files(place.other))


def _answers(place, folder):
    exported = saved_model.Exported(folder / "served").estimate_log_prob(place.x, place.sizes.num_samples)
    loaded = keras.saving.load_model(folder / "model.keras")
    estimate = likelihood.estimate_log_prob(loaded, place.x, place.sizes.num_samples)
    return {"exported": exported.log_prob, "value": estimate.log_prob}


def questions(sizes):
    """Every question by name: dict of functions of a `Place`."""
    asked: dict[str, Callable] = {
        f"gradients of {name}": functools.partial(gradients, name) for name in sizes.objectives
    }
    asked["gradients in TensorFloat-32"] = functools.partial(gradients, "iwae", allowed=True)
    asked["gradients in bfloat16"] = functools.partial(gradients, "iwae", mixed_precision="bfloat16")
    asked |= {"log p(x)": log_prob, "resampling": resampled}
    asked |= {"training": trained, "steps_per_execution": several_steps}
    asked["input on the device"] = made_on_device
    asked |= {"files": written, "files of another": read}
    for name in _COMPILED if sizes.objectives == objectives.names() else ():
        asked[f"gradients of {name} by XLA"] = functools.partial(gradients, name, compiled=True)
    asked["training by XLA"] = functools.partial(trained, compiled=True)
    asked["training in bfloat16"] = functools.partial(trained, mixed_precision="bfloat16")
    asked["annealing"] = annealed
    # Last: without a whole cuSOLVER, TensorFlow ends the process.
    asked["log p(x) in closed form"] = closed_form
    asked["annealing of a closed form"] = annealed_closed_form
    return asked
