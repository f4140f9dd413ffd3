"""The table of presets: names of networks and heads with their sizes, and settings. Data, not code."""

import dataclasses
from typing import Any

from iwae_zoo._checks import integer, look_up

__all__ = ["TABLE", "Preset", "default", "get", "names"]


@dataclasses.dataclass(frozen=True)
class Preset:
    """An architecture, and the settings it is usually trained with.

    Attributes:
      latent_size: int, D; of stacked stochastic layers one for each, from x upwards.
      hidden_sizes: units of the encoder's hidden layers; the decoder mirrors them. Of stacked layers one such tuple for
        each, or one for all.
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

    latent_size: int | tuple[int, ...]
    hidden_sizes: tuple[Any, ...]
    activation: str
    batch_size: int
    learning_rate: float
    epochs: int
    network: str = "perceptron"
    likelihood: str | None = None
    posterior: str = "normal"
    prior: str = "standard_normal"
    data: tuple[str, ...] = ()

    @property
    def layers(self):
        """The stochastic layers from x upwards: a list of pairs (latent_size, hidden_sizes).

        Raises:
          ValueError: if there are no layers, a size is not a positive integer, or the two do not match.

        #### Examples
        >>> get("burda_2").layers
        [(100, (200, 200)), (50, (100, 100))]
        """
        sizes = self.latent_size if isinstance(self.latent_size, tuple) else (self.latent_size,)
        nested = {isinstance(hidden, tuple) for hidden in self.hidden_sizes}
        hidden_sizes = self.hidden_sizes if True in nested else (self.hidden_sizes,) * len(sizes)
        if not sizes or len(sizes) != len(hidden_sizes) or len(nested) > 1:
            raise ValueError(
                "There must be a latent_size and hidden_sizes for each stochastic layer: received "
                f"latent_size={self.latent_size}, hidden_sizes={self.hidden_sizes}."
            )
        return [
            (integer("latent_size", size), tuple(integer("hidden_sizes", units) for units in hidden))
            for size, hidden in zip(sizes, hidden_sizes, strict=True)
        ]


TABLE = {
    # For 8x8 digits: trains in about a minute on two CPU cores.
    "small": Preset(16, (64, 64), "tanh", batch_size=32, learning_rate=2e-3, epochs=150, data=("digits",)),
    # The same with a latent that can be drawn on paper.
    "plane": Preset(2, (64, 64), "tanh", batch_size=32, learning_rate=2e-3, epochs=150),
    # Rainforth et al. 2018, after the one-layer model of Burda et al. 2016; the papers train for 3280 epochs.
    "rainforth": Preset(50, (200, 200), "tanh", batch_size=20, learning_rate=1e-3, epochs=20),
    # Burda et al. 2016, section 5: one and two stochastic layers.
    "burda_1": Preset(50, (200, 200), "tanh", batch_size=20, learning_rate=1e-3, epochs=20),
    "burda_2": Preset((100, 50), ((200, 200), (100, 100)), "tanh", batch_size=20, learning_rate=1e-3, epochs=20),
}
_DEFAULT = "rainforth"


def names():
    """Every registered name."""
    return tuple(TABLE)


def get(name, **fields):
    """Returns a `Preset` by name.

    Args:
      name: one of `names()`.
      **fields: of the `Preset`, in place of its own where they are not None.

    Raises:
      ValueError: on an unknown name.
    """
    chosen = {field: value for field, value in fields.items() if value is not None}
    return dataclasses.replace(look_up(TABLE, name, "preset"), **chosen)


def default(dataset):
    """Name of the preset that a data set gets if none is chosen."""
    return next((name for name, preset in TABLE.items() if dataset in preset.data), _DEFAULT)
