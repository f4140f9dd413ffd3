"""Draws of the model, of which the sleep update teaches the encoder the latents."""

from typing import NamedTuple

import tensorflow as tf

from iwae_zoo.distributions import likelihoods
from iwae_zoo.model import particles

__all__ = ["Dreams", "check", "draw"]

# Sub-streams of a step's seed; 1 is that of `backward_particles`.
_LATENT, _DATA = 2, 3


class Dreams(NamedTuple):
    """What the model dreamed, as constants.

    Attributes:
      z: float tensor [B, D], drawn from the prior.
      x: tensor [B, ...], drawn from p(x | z), in the units of the data.
    """

    z: tf.Tensor
    x: tf.Tensor


def check(decoder, who="The sleep update", instead="sleep=0, or another likelihood"):
    """Raises ValueError where draws of x are not of the decoder's p(x | z), and says who draws and what to use."""
    head = likelihoods.of(decoder)
    if head is not None and head.not_drawn:
        raise ValueError(
            f"{who} draws x from the model, and the likelihood {head.name!r} has no draws of p(x | z): "
            f"{head.not_drawn}. Use {instead}."
        )


def draw(model, seed, first_row, rows, global_batch):
    """One draw of the model for each example, whatever the examples are.

    A replica draws those of the whole batch and keeps its own: each row gets the same however the batch is split, from
    distributions of every kind. Draws stay outside of what XLA compiles, which several samplers cannot be.

    Args:
      model: anything with `decoder` and `prior`.
      seed: stateless seed, two integers.
      first_row: int or int tensor [], index of the first row in the global batch.
      rows: int or int tensor [], B.
      global_batch: int or int tensor [], number of rows of the global batch.

    Returns:
      `Dreams`.
    """
    global_batch = tf.cast(global_batch, tf.int32)
    z = model.prior.distribution().sample(global_batch, seed=particles.derive_seed(seed, _LATENT))
    x = model.decoder.likelihood(z).sample(seed=particles.derive_seed(seed, _DATA))
    return Dreams(*(tf.stop_gradient(drawn[first_row : first_row + rows]) for drawn in (z, x)))
