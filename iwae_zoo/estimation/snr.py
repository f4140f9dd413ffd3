"""Signal-to-noise ratios and variances of both networks' gradients."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from iwae_zoo import objectives
from iwae_zoo._checks import checked_seed, integer
from iwae_zoo._precision import tensor_float_32
from iwae_zoo._tracing import per_model
from iwae_zoo.model import ImportanceWeightedAutoencoder, dreams, examples, gradients, particles

__all__ = ["LEAST_REPEATS", "GradientSNR", "SideSNR", "gradient_snr"]

# The SNR of fewer than 5 draws has no variance of its own, and an error needs at least two groups.
_GROUPS, _LEAST_GROUP = 10, 5
LEAST_REPEATS = 2 * _LEAST_GROUP


class SideSNR(NamedTuple):
    """Signal-to-noise ratios of the gradient of one network.

    Attributes:
      snr: list of float64 arrays in the order and the shapes of the variables, the SNR of each parameter; NaN where the
        gradient did not vary, as at the weights of a pixel that is always 0.
      mean: float, mean SNR over the parameters whose gradient varied; NaN if there are none.
      mean_error: float, its standard error from the spread between groups of repeats.
      median: float, median over the same parameters.
      median_error: float, its standard error.
      dsnr: float, directional SNR.
      dsnr_error: float, its standard error, with the direction taken as known.
      variance: float, of the gradient: summed over the parameters.
    """

    snr: list
    mean: float
    mean_error: float
    median: float
    median_error: float
    dsnr: float
    dsnr_error: float
    variance: float


class GradientSNR(NamedTuple):
    """`SideSNR` of the encoder, and of the decoder with the prior."""

    encoder: SideSNR
    decoder: SideSNR


@tensor_float_32(False)
def gradient_snr(model, x, num_repeats=1000, seed=0, objective=None):
    """Signal-to-noise ratio of the gradient estimates on one fixed minibatch, over repeated noise.

    SNR = |E[Delta]| / sqrt(Var[Delta]), for each parameter
    DSNR = E[ ||Delta_parallel|| / ||Delta_perp|| ], for each network, with u = E[Delta] / ||E[Delta]||,
           Delta_parallel = (Delta . u) u and Delta_perp = Delta - Delta_parallel

    Repeat r is `model.compute_gradients(x, particles.derive_seed(seed, r))`; of another objective, that of the same
    networks, through all particles at once. The expectations are means over the
    repeats and the variance is the unbiased one. The DSNR takes a second pass over the same repeats, when u is known.
    So time grows with the number of repeats, and memory does not.

    Where there is no signal, a finite number R of repeats still shows some: an SNR of about sqrt(2 / (pi R)), and a
    DSNR of at least about max(1 / sqrt(R), sqrt(2 / (pi P))) for P parameters, more if few directions hold most of the
    noise. A value near these only says "no more than this".

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [B, ...], the minibatch.
      num_repeats: int, number R of gradients, at least 10.
      seed: int.
      objective: `Objective` to probe the model with, or the name of one (at m = k = 8); None for the model's own.

    Returns:
      `GradientSNR`.

    Raises:
      ValueError: on too few repeats, an x that does not fit the model, or an unknown objective.

    #### Examples
    >>> from iwae_zoo.testing import LinearGaussian
    >>> exact = LinearGaussian.random(latent_size=2, data_size=3)
    >>> snr = gradient_snr(exact.model("iwae", mismatch=0.3), exact.sample(4), num_repeats=10)
    >>> [array.shape for array in snr.encoder.snr]
    [(2, 3), (2,), (2, 2)]

    #### References
    Kosiorek. What is wrong with VAEs? 2018, eq. 13 (SNR).
    Rainforth et al. Tighter Variational Bounds are Not Necessarily Better. ICML 2018, eq. 4 (SNR) and eq. 12 (DSNR).
    https://arxiv.org/abs/1802.04537. The DSNR is that of the OVIS article, https://arxiv.org/abs/2008.01998, too.
    """
    repeats = integer("num_repeats", num_repeats, LEAST_REPEATS)
    x = examples.some(model, x)
    examples.check_support(model.decoder, x)
    options = (model.backward_particles, model.particle_chunk) if objective is None else (None, None)
    objective = model.objective if objective is None else objectives.get(objective)
    # Which variables are trained may change, and what was traced for others with it.
    trained = tuple(map(id, model.encoder_variables + model.decoder_variables))
    passes = _passes(model, objective, *options, trained)
    seed = particles.derive_seed(checked_seed(seed))
    edges = np.linspace(0, repeats, min(_GROUPS, repeats // _LEAST_GROUP) + 1).astype(int)
    counts = np.diff(edges)
    groups = [_run(model, passes.moments, x, seed, *interval) for interval in itertools.pairwise(edges)]
    means, squares = (np.stack(parts) for parts in zip(*groups, strict=True))  # [G, P] both
    mean = counts @ means / repeats
    total = squares.sum(axis=0) + counts @ (means - mean) ** 2
    snr = _snr(repeats, mean, total)
    snr_of_groups = _snr(counts[:, np.newaxis], means, squares)
    ratio, ratio_squares = _run(model, passes.ratios, x, seed, 0, repeats, mean)
    ratio_error = np.sqrt(ratio_squares / (repeats - 1) / repeats)
    cut = passes.encoder_size
    variances = [np.sum(side) / (repeats - 1) for side in (total[:cut], total[cut:])]
    return GradientSNR(
        _side(model.encoder_variables, snr[:cut], snr_of_groups[:, :cut], ratio[0], ratio_error[0], variances[0]),
        _side(model.decoder_variables, snr[cut:], snr_of_groups[:, cut:], ratio[1], ratio_error[1], variances[1]),
    )


class _Passes(NamedTuple):
    """Traced loops over repeated gradients, the encoder's and the decoder's in one vector [P]."""

    moments: Callable
    ratios: Callable
    encoder_size: int


@per_model
def _passes(model, objective, backward_particles, particle_chunk, trained):
    del trained
    # A model of its own: the objective may be another, and the cache must not hold on to its key.
    probe = ImportanceWeightedAutoencoder(model.encoder, model.decoder, model.prior, objective=objective, name="probe")
    probe.build((None, *model.data_shape))
    sizes = [sum(_size(v) for v in side) for side in (probe.encoder_variables, probe.decoder_variables)]
    number = tf.TensorSpec([], tf.int32)
    signature = [tf.TensorSpec([None, *model.data_shape]), tf.TensorSpec([2], tf.int32), number, number]

    @tf.function(input_signature=signature[:2], autograph=False)  # Once for both passes.
    def gradient(x, seed):
        rows = tf.shape(x)[0]  # All replicas look at the same batch.
        dreamed = dreams.draw(probe, seed, 0, rows, rows) if probe.objective.sleep else None
        computed = gradients.compute(probe, x, seed, 0, rows, backward_particles, particle_chunk, dreamed)
        parts = [tf.reshape(part, [-1]) for part in (*computed.encoder, *computed.decoder)]
        return tf.concat([tf.cast(part, tf.float64) for part in parts], axis=0)

    @tf.function(input_signature=signature, autograph=False)
    def moments(x, seed, start, stop):
        return _stream(lambda repeat: gradient(x, particles.derive_seed(seed, repeat)), sum(sizes), start, stop)

    @tf.function(input_signature=[*signature, tf.TensorSpec([sum(sizes)], tf.float64)], autograph=False)
    def ratios(x, seed, start, stop, mean):
        means = tf.split(mean, sizes)

        def both(repeat):
            sides = tf.split(gradient(x, particles.derive_seed(seed, repeat)), sizes)
            return tf.stack([_directional_ratio(*pair) for pair in zip(sides, means, strict=True)])

        return _stream(both, 2, start, stop)

    return _Passes(moments, ratios, sizes[0])


def _run(model, function, *arguments):
    """The arrays that `function` returns, on one replica if the model is distributed: all would answer the same."""
    strategy = model.distribute_strategy
    return [strategy.experimental_local_results(part)[0].numpy() for part in strategy.run(function, arguments)]


def _stream(draw, size, start, stop):
    """Mean and sum of squared deviations, float64 [size], of `draw(repeat)` for start <= repeat < stop, by Welford."""

    def step(repeat, mean, squares):
        value = draw(repeat)
        shift = value - mean
        mean += shift / tf.cast(repeat - start + 1, tf.float64)
        return repeat + 1, mean, squares + shift * (value - mean)

    zeros = tf.zeros([size], tf.float64)
    return tf.while_loop(lambda repeat, *_: repeat < stop, step, (start, zeros, zeros), parallel_iterations=1)[1:]


def _directional_ratio(gradient, mean):
    unit = tf.math.divide_no_nan(mean, tf.norm(mean))
    parallel = tf.reduce_sum(gradient * unit) * unit
    return tf.norm(parallel) / tf.norm(gradient - parallel)


def _snr(count, mean, squares):
    varied = squares > 0
    return np.where(varied, np.abs(mean) / np.sqrt(np.where(varied, squares / (count - 1), 1.0)), np.nan)


def _side(variables, snr, snr_of_groups, *rest):
    def summary(values):
        values = values[~np.isnan(values)]
        return (np.mean(values), np.median(values)) if len(values) else (np.nan, np.nan)

    mean, median = summary(snr)
    errors = np.std([summary(group) for group in snr_of_groups], axis=0, ddof=1) / np.sqrt(len(snr_of_groups))
    parts = np.split(snr, np.cumsum([_size(v) for v in variables], dtype=int))
    arrays = [part.reshape(v.shape) for part, v in zip(parts[: len(variables)], variables, strict=True)]
    return SideSNR(arrays, *map(float, (mean, errors[0], median, errors[1], *rest)))


def _size(variable):
    return int(np.prod(variable.shape))
