"""What a trained model makes up: z from the prior, and x from p(x | z)."""

from typing import NamedTuple

import numpy as np

from iwae_zoo._checks import checked_seed, integer
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.distributions.moments import mean
from iwae_zoo.model import particles

__all__ = ["Samples", "sample"]


class Samples(NamedTuple):
    """Draws of a model.

    Attributes:
      x: float array [N, ...], in the units of the data.
      mean: float array [N, ...], E[x | z]: of pictures what is usually shown, without the noise of each pixel.
      z: array [N, D].
    """

    x: np.ndarray
    mean: np.ndarray
    z: np.ndarray


@tensor_float_32(False)
def sample(model, count=1, seed=0):
    """Draws z from the prior and x from p(x | z).

    Args:
      model: `ImportanceWeightedAutoencoder`, built.
      count: int, number N of draws, all decoded at once.
      seed: int, 0 <= seed < 2^31; the same seed gives the same draws.

    Returns:
      `Samples`. Of counts with an offset, x is that of a row with the mean total of the training data.

    Raises:
      ValueError: on a number out of range.

    #### Examples
    >>> from iwae_zoo.testing import LinearGaussian
    >>> drawn = sample(LinearGaussian.random(latent_size=2, data_size=3).model("iwae"), 5)
    >>> drawn.x.shape, drawn.mean.shape, drawn.z.shape
    ((5, 3), (5, 3), (5, 2))
    """
    count, seed = integer("count", count), checked_seed(seed)
    z = model.prior.distribution().sample(count, seed=(seed, 0))
    p = model.decoder.likelihood(z)
    return Samples(p.sample(seed=particles.derive_seed(seed, 1)).numpy(), mean(p).numpy(), z.numpy())
