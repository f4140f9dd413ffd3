"""Priors p(z)."""

import keras

from iwae_zoo._checks import look_up
from iwae_zoo.distributions.gaussian import StandardNormal

__all__ = ["TABLE", "StandardNormalPrior", "get", "names"]


@keras.saving.register_keras_serializable(package="iwae_zoo")
class StandardNormalPrior(keras.Layer):
    """p(z) = N(0, I).

    Args:
      latent_size: int, D.
    """

    def __init__(self, latent_size, **kwargs):
        super().__init__(**kwargs)
        self.latent_size = latent_size

    def distribution(self):
        """p(z): batch [], event [D]."""
        return StandardNormal(self.latent_size, self.variable_dtype)

    def get_config(self):
        return {**super().get_config(), "latent_size": self.latent_size}


# A new prior is a class and a row.
TABLE = {"standard_normal": StandardNormalPrior}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(name, latent_size):
    """Returns a prior by name.

    Raises:
      ValueError: on an unknown name.
    """
    return look_up(TABLE, name, "prior")(latent_size)
