"""The table of presets: names of networks and heads with their sizes, and settings. Data, not code."""

import dataclasses

from iwae_zoo._checks import look_up

__all__ = ["TABLE", "Preset", "default", "get", "names"]


@dataclasses.dataclass(frozen=True)
class Preset:
    """An architecture, and the settings it is usually trained with.

    Attributes:
      latent_size: int, D.
      hidden_sizes: units of the encoder's hidden layers; the decoder mirrors them.
      activation: of the hidden layers.
      batch_size: int.
      learning_rate: of Adam, for both optimizers.
      epochs: int, a default for a first look; papers train longer.
      network: name of a body, as `networks.bodies` has it.
      likelihood: name of a likelihood; None for the default of the data's kind.
      posterior: name of a posterior.
      prior: name of a prior.
      data: names of the data sets that it is the default for.
    """

    latent_size: int
    hidden_sizes: tuple[int, ...]
    activation: str
    batch_size: int
    learning_rate: float
    epochs: int
    network: str = "perceptron"
    likelihood: str | None = None
    posterior: str = "normal"
    prior: str = "standard_normal"
    data: tuple[str, ...] = ()


TABLE = {
    # For 8x8 digits: trains in about a minute on two CPU cores.
    "small": Preset(16, (64, 64), "tanh", batch_size=32, learning_rate=2e-3, epochs=150, data=("digits",)),
    # The same with a latent that can be drawn on paper.
    "plane": Preset(2, (64, 64), "tanh", batch_size=32, learning_rate=2e-3, epochs=150),
    # Rainforth et al. 2018, after the one-layer model of Burda et al. 2016; the papers train for 3280 epochs.
    "rainforth": Preset(50, (200, 200), "tanh", batch_size=20, learning_rate=1e-3, epochs=20),
}
_DEFAULT = "rainforth"


def names():
    """Every registered name."""
    return tuple(TABLE)


def get(name):
    """Returns a `Preset` by name.

    Raises:
      ValueError: on an unknown name.
    """
    return look_up(TABLE, name, "preset")


def default(dataset):
    """Name of the preset that a data set gets if none is chosen."""
    return next((name for name, preset in TABLE.items() if dataset in preset.data), _DEFAULT)
