"""What comes ready made: named architectures with the settings they are trained with, and some with weights."""

from iwae_zoo.presets import trained
from iwae_zoo.presets.build import build, check_latent, check_shape, choose_likelihood, dtype_policy
from iwae_zoo.presets.listing import describe
from iwae_zoo.presets.table import TABLE, Preset, default, get, names
from iwae_zoo.presets.trained import card, load

__all__ = [
    "TABLE",
    "Preset",
    "build",
    "card",
    "check_latent",
    "check_shape",
    "choose_likelihood",
    "default",
    "describe",
    "dtype_policy",
    "get",
    "load",
    "names",
    "trained",
]
