"""Named architectures with their training settings: data, not code."""

import dataclasses

from iwae_zoo._checks import look_up
from iwae_zoo.model import ImportanceWeightedAutoencoder
from iwae_zoo.networks import MLPDecoder, MLPEncoder, StandardNormalPrior

__all__ = ["Preset", "build", "dtype_policy", "get", "names"]


@dataclasses.dataclass(frozen=True)
class Preset:
    """An architecture of multi-layer perceptrons, and the settings it is usually trained with.

    Attributes:
      latent_size: int, D.
      hidden_sizes: units of the encoder's hidden layers; the decoder mirrors them.
      activation: of the hidden layers.
      batch_size: int.
      learning_rate: of Adam, for both optimizers.
      epochs: int, a default for a first look; papers train longer.
    """

    latent_size: int
    hidden_sizes: tuple[int, ...]
    activation: str
    batch_size: int
    learning_rate: float
    epochs: int


_PRESETS = {
    # For 8x8 digits: trains in about a minute on two CPU cores.
    "small": Preset(16, (64, 64), "tanh", batch_size=32, learning_rate=2e-3, epochs=150),
    # The same with a latent that can be drawn on paper.
    "plane": Preset(2, (64, 64), "tanh", batch_size=32, learning_rate=2e-3, epochs=150),
    # Rainforth et al. 2018, after the one-layer model of Burda et al. 2016; the papers train for 3280 epochs.
    "rainforth": Preset(50, (200, 200), "tanh", batch_size=20, learning_rate=1e-3, epochs=20),
}


def names():
    """Every registered name."""
    return tuple(_PRESETS)


def get(name):
    """Returns a `Preset` by name.

    Raises:
      ValueError: on an unknown name.
    """
    return look_up(_PRESETS, name, "preset")


def dtype_policy(mixed_precision):
    """Name of the Keras dtype policy of networks that compute in a type and keep float32 weights.

    Args:
      mixed_precision: "bfloat16", or None for float32 throughout.

    Raises:
      ValueError: on anything else. float16 would need its losses scaled.
    """
    if mixed_precision not in (None, "bfloat16"):
        raise ValueError(f"mixed_precision must be 'bfloat16' or left out: received {mixed_precision!r}.")
    return mixed_precision and f"mixed_{mixed_precision}"


def build(name, *, data_shape, objective="iwae", seed=0, data_mean=None, mixed_precision=None):
    """Builds an untrained model.

    Args:
      name: one of `names()`.
      data_shape: shape of one x.
      objective: an `Objective`, or the name of one.
      seed: int, of the initial weights and of training.
      data_mean: optional array of `data_shape`, the training mean, for the output bias.
      mixed_precision: as in `dtype_policy`.

    Returns:
      `ImportanceWeightedAutoencoder`, built.

    Raises:
      ValueError: on an unknown name or type.
    """
    preset = get(name)
    size, hidden, activation = preset.latent_size, preset.hidden_sizes, preset.activation
    # Each layer has a seed of its own: seeds 1000 s, 1000 s + 1, ... for a model of seed s.
    dtype = dtype_policy(mixed_precision)
    encoder = MLPEncoder(size, hidden, activation, seed=1000 * seed, dtype=dtype)
    decoder = MLPDecoder(data_shape, hidden[::-1], activation, seed=1000 * seed + 500, data_mean=data_mean, dtype=dtype)
    model = ImportanceWeightedAutoencoder(encoder, decoder, StandardNormalPrior(size), objective=objective, seed=seed)
    model.build((None, *data_shape))
    return model
