"""Draws from the posterior p(z | x) by sampling-importance-resampling from the encoder's q(z | x).

With K particles a draw has the distribution that the importance-weighted bound implicitly fits to the posterior. It is
the encoder's for K = 1 and tends to the posterior as K grows.
"""

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import checked_seed, integer
from iwae_zoo._precision import tensor_float_32
from iwae_zoo._tracing import Networks, per_model
from iwae_zoo.distributions import likelihoods, noise
from iwae_zoo.estimation import psis, tiles
from iwae_zoo.estimation.rows import by_rows, checked_answers, numbered, swapped
from iwae_zoo.estimation.streaming import checked_counts, observed, race
from iwae_zoo.model import examples, particles

__all__ = ["resample", "sample_posterior"]


@tensor_float_32(False)
def sample_posterior(model, x, num_samples=1, num_particles=100, seed=0, chunk_size=None, *, tile_rows=None):
    """Draws z from the encoder, corrected towards the posterior by importance resampling.

    z = z_i with probability w_i / sum_k w_k,  w_k = p(x, z_k) / q(z_k | x),  z_1 ... z_K ~ q(z | x)

    Each draw has K particles of its own. Draws that shared their particles would repeat the heavy ones: they would not
    be independent, and not draws of the resampling distribution.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [B, ...], finite.
      num_samples: int, number S of draws for each example; time grows with S K.
      num_particles: int, number K of particles for each draw; memory does not grow with it.
      seed: int. Draw s of example b comes from the sub-stream (`seed`, b, s), whatever the other examples are and
        however many draws there are.
      chunk_size: int, number of particles decoded at once, at most `num_particles`; None chooses. It changes which
        random numbers are drawn, nothing else.
      tile_rows: int, as in `likelihood.estimate_log_prob`.

    Returns:
      (z, ess): float array [S, B, D], of the dtype of the encoder's draws, and float64 array [B], the effective number
      of the K particles (Kong), averaged over the draws. An `ess` near 1 means that a few particles stand for the
      posterior, and that more of them would change the answer.

    Raises:
      ValueError: on a number out of range, an x of another shape, not finite or outside the likelihood's support (it
        has no posterior), or a model whose weights are NaN.
      MemoryError: if the device is out of memory; the message has a `chunk_size` that would fit.

    #### Examples
    >>> from iwae_zoo.testing import LinearGaussian
    >>> exact = LinearGaussian.random(latent_size=2, data_size=3)
    >>> z, ess = sample_posterior(exact.model("iwae"), exact.sample(4), num_samples=3, num_particles=5)
    >>> z.shape, ess.round(3).tolist()  # The encoder is the posterior: all weights are the same.
    ((3, 4, 2), [5.0, 5.0, 5.0, 5.0])

    #### References
    Cremer, Morris, Duvenaud. Reinterpreting Importance-Weighted Autoencoders. ICLR workshop, 2017, Algorithm 1.
    https://arxiv.org/abs/1704.02916
    Kosiorek. What is wrong with VAEs? 2018, eq. 11-12.
    """
    num_samples = integer("num_samples", num_samples)
    num_particles, chunk_size = checked_counts(chunk_size, num_particles=num_particles)
    x, seed = examples.fitting(model, x), checked_seed(seed)
    tile_rows = tiles.choose(tile_rows, model, chunk_size)
    answer = _rows_function(model, chunk_size, psis.capacity(num_particles), num_samples, tile_rows)
    with tiles.enough(tile_rows, model, chunk_size):
        answers = answer(numbered(len(x)), seed, x, num_particles)
    z, ess = answers["z"].numpy(), checked_answers(answers["ess"].numpy())
    rows = np.flatnonzero((ess == 0.0).any(axis=1))
    if len(rows):
        raise ValueError(
            f"x is outside the likelihood's support in {len(rows)} of {len(x)} examples, the first at row {rows[0]}: "
            f"these have no posterior. Of the likelihood, {likelihoods.support(model.decoder)}. Mend or remove them."
        )
    return np.moveaxis(z, 1, 0), ess.mean(axis=1)


def resample(networks, x, num_particles, seed, chunk_size, capacity):
    """One draw for one example, or each of a tile, in a stream of particles; TensorFlow operations only, for graphs.

    Args:
      networks: anything with `encoder`, `decoder` and `prior`, such as a model.
      x: tensor [...], one example; or a tile [T, ...], from an encoder whose draws take seeds by row.
      num_particles: int tensor [], number K of particles; or [T].
      seed: stateless seed [2]; or [T, 2].
      chunk_size: int, particles decoded at once.
      capacity: int, as in `streaming.stream`.

    Returns:
      dict: z [D] and ess, float64 [], or [T, D] and [T]: NaN and 0 for an x that is not finite or outside the
      likelihood's support.
    """
    tiled = noise.is_by_row(seed)
    observer = race(networks.prior.distribution(), 1, seed.shape[0] if tiled else 1)
    tolerance = tf.constant(0.0, tf.float64)
    answer, (_, z) = observed(networks, x, num_particles, seed, tolerance, chunk_size, capacity, observer=observer)
    z = z[:, 0] if tiled else z[0, 0]
    z = tf.cast(z, _dtype(z))
    usable = answer["in_support"][..., tf.newaxis]
    return {"z": tf.where(usable, z, tf.constant(np.nan, z.dtype)), "ess": answer["ess"]}


def _dtype(z):
    """That of draws, which may be NaN: float32 where z are integers."""
    return tf.float32 if z.dtype.is_integer else z.dtype


@per_model
def _rows_function(model, chunk_size, capacity, num_samples, tile_rows):
    """The traced function that draws for each example of a batch."""
    networks, prior = Networks.of(model), model.prior.distribution()
    outputs = {"z": tf.TensorSpec(prior.event_shape, _dtype(prior)), "ess": tf.TensorSpec([], tf.float64)}

    def one(seed, x, num_particles):
        tile = list(seed.shape[:-1])
        of_tile = {name: tf.TensorSpec([*tile, *spec.shape], spec.dtype) for name, spec in outputs.items()}

        def draw(number):
            own = particles.derive_seed(seed, number)
            return resample(networks, x, tf.fill(tile, num_particles), own, chunk_size, capacity)

        drawn = tf.map_fn(draw, tf.range(num_samples), fn_output_signature=of_tile, parallel_iterations=1)
        return {name: swapped(values) for name, values in drawn.items()} if tile else drawn

    of_draws = {name: tf.TensorSpec([num_samples, *spec.shape], spec.dtype) for name, spec in outputs.items()}
    return by_rows(model, one, [tf.TensorSpec(model.data_shape)], [tf.TensorSpec([], tf.int32)], of_draws, tile_rows)
