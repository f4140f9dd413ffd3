"""Is the encoder still learning, and is the latent space used?

Gradient signal-to-noise ratios of both networks, active units and the parts of the KL term, and a callback that adds
them to the epochs' logs. The gap between the bounds, -KL(Q || P) and the ESS are those of `evaluation`.
"""

import itertools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo import objectives
from iwae_zoo._checks import integer
from iwae_zoo._tracing import per_model
from iwae_zoo.estimation import evaluation, likelihood
from iwae_zoo.model import ImportanceWeightedAutoencoder, gradients, particles

__all__ = [
    "ACTIVE_VARIANCE",
    "Diagnostics",
    "GradientSNR",
    "LatentUse",
    "SideSNR",
    "gradient_snr",
    "latent_use",
    "summarize",
]

tfd = tfp.distributions

# Variance of the posterior mean above which Burda et al. call a latent dimension active.
ACTIVE_VARIANCE = 0.01
# The SNR of fewer than 5 draws has no variance of its own, and an error needs at least two groups.
_GROUPS, _LEAST_GROUP = 10, 5
_LEAST_REPEATS = 2 * _LEAST_GROUP


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
    """

    snr: list
    mean: float
    mean_error: float
    median: float
    median_error: float
    dsnr: float
    dsnr_error: float


class GradientSNR(NamedTuple):
    """`SideSNR` of the encoder, and of the decoder with the prior."""

    encoder: SideSNR
    decoder: SideSNR


class LatentUse(NamedTuple):
    """What the encoder tells about x, averaged over the examples that were given.

    Attributes:
      active_units: int, number of dimensions whose `mean_variance` is above 0.01.
      mean_variance: float64 array [D], variance over the examples of the mean of q(z | x).
      kl: float, mean of KL(q(z | x) || p(z)), nats.
      kl_by_dimension: float64 array [D], nats, of sum `kl`; None unless q(z | x) and p(z) are both `tfd.Independent`
        over the dimensions.
      mutual_information: float, nats, of z and the index of the example; at most log N.
      aggregate_kl: float, KL(q(z) || p(z)) of the aggregate posterior q(z) = mean_n q(z | x_n), nats.
    """

    active_units: int
    mean_variance: np.ndarray
    kl: float
    kl_by_dimension: np.ndarray | None
    mutual_information: float
    aggregate_kl: float


def gradient_snr(model, x, num_repeats=1000, seed=0, objective=None):
    """Signal-to-noise ratio of the gradient estimates on one fixed minibatch, over repeated noise.

    SNR = |E[Delta]| / sqrt(Var[Delta]), for each parameter
    DSNR = E[ ||Delta_parallel|| / ||Delta_perp|| ], for each network, with u = E[Delta] / ||E[Delta]||,
           Delta_parallel = (Delta . u) u and Delta_perp = Delta - Delta_parallel

    Repeat r is `model.compute_gradients(x, particles.derive_seed(seed, r))`. The expectations are means over the
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
    https://arxiv.org/abs/1802.04537
    """
    repeats = integer("num_repeats", num_repeats, _LEAST_REPEATS)
    x = _examples(model, x)
    passes = _passes(model, model.objective if objective is None else objectives.get(objective))
    seed = particles.derive_seed(seed)
    edges = np.linspace(0, repeats, min(_GROUPS, repeats // _LEAST_GROUP) + 1).astype(int)
    counts = np.diff(edges)
    groups = [_run(model, passes.moments, x, seed, *interval) for interval in itertools.pairwise(edges)]
    means, squares = (np.stack(parts) for parts in zip(*groups, strict=True))  # [G, P] both
    mean = counts @ means / repeats
    snr = _snr(repeats, mean, squares.sum(axis=0) + counts @ (means - mean) ** 2)
    snr_of_groups = _snr(counts[:, np.newaxis], means, squares)
    ratio, ratio_squares = _run(model, passes.ratios, x, seed, 0, repeats, mean)
    ratio_error = np.sqrt(ratio_squares / (repeats - 1) / repeats)
    cut = passes.encoder_size
    return GradientSNR(
        _side(model.encoder_variables, snr[:cut], snr_of_groups[:, :cut], ratio[0], ratio_error[0]),
        _side(model.decoder_variables, snr[cut:], snr_of_groups[:, cut:], ratio[1], ratio_error[1]),
    )


def latent_use(model, x, num_samples=100, seed=0):
    """Active units, and the mean KL term with the two parts that it is made of.

    mean_n KL(q(z | x_n) || p(z)) = I(n; z) + KL(q(z) || p(z)),  q(z) = mean_n q(z | x_n)

    The left side is in closed form where TFP has one and by Monte Carlo otherwise. The right side is always by Monte
    Carlo, and its sum differs from the left side by the sampling error. I(n; z) is at most log N: with too few examples
    it stops there.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...]; time grows with N^2.
      num_samples: int, number of draws of z for each example.
      seed: int.

    Returns:
      `LatentUse`.

    Raises:
      ValueError: on fewer than one sample, or an x that does not fit the model.

    #### Examples
    >>> from iwae_zoo.testing import LinearGaussian
    >>> exact = LinearGaussian.random(latent_size=2, data_size=3)
    >>> latent_use(exact.model("iwae"), exact.sample(10)).active_units
    2

    #### References
    Burda, Grosse, Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016, section 5.2 (active units).
    https://arxiv.org/abs/1509.00519
    Hoffman, Johnson. ELBO surgery. NIPS workshop on advances in approximate Bayesian inference, 2016 (the two parts).
    """
    samples = integer("num_samples", num_samples, 1)
    x = _examples(model, x)
    posterior, prior = model.encoder.posterior(x), model.prior.distribution()
    z = posterior.sample(samples, seed=particles.derive_seed(seed))  # [S, N, D]

    def log_aggregate(z_of_one):
        log_q = tf.cast(posterior.log_prob(z_of_one[:, tf.newaxis]), tf.float64)  # [S, N]
        return tf.reduce_logsumexp(log_q, axis=1) - np.log(len(x))

    # One example's draws at a time: [S, N, D] numbers instead of [S, N, N, D].
    log_q_of_z = tf.map_fn(log_aggregate, tf.transpose(z, [1, 0, 2]), fn_output_signature=tf.float64)  # [N, S]
    log_q = tf.transpose(tf.cast(posterior.log_prob(z), tf.float64))
    log_p = tf.transpose(tf.cast(prior.log_prob(z), tf.float64))
    by_dimension = _kl_by_dimension(posterior, prior, z)
    kl = np.mean(_kl(posterior, prior, z)) if by_dimension is None else by_dimension.sum()
    variance = np.var(np.asarray(posterior.mean(), np.float64), axis=0)
    return LatentUse(
        active_units=int(np.sum(variance > ACTIVE_VARIANCE)),
        mean_variance=variance,
        kl=float(kl),
        kl_by_dimension=by_dimension,
        mutual_information=float(np.mean(log_q - log_q_of_z)),
        aggregate_kl=float(np.mean(log_q_of_z - log_p)),
    )


def summarize(model, x, num_repeats=50, batch_size=20, num_samples=1000, seed=0):
    """All diagnostics as one flat dict of numbers, for logs.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...].
      num_repeats: int, gradients for the SNR, at least 10.
      batch_size: int, number of examples, the first ones, whose gradient is looked at.
      num_samples: int, particles per example for log p(x).
      seed: int.

    Returns:
      dict of floats: for both networks the median SNR and the DSNR; of `LatentUse` active_units, kl,
      mutual_information and aggregate_kl; bound_gap, the bound at M K particles minus the ELBO, nats; and negative_kl,
      importance_ess and num_untrusted of `evaluation.Evaluation`.

    Raises:
      ValueError: as `gradient_snr` and `latent_use`.
    """
    snr = gradient_snr(model, x[: integer("batch_size", batch_size, 1)], num_repeats, seed)
    use = latent_use(model, x, seed=seed)
    with warnings.catch_warnings():
        # Their number is in the answer.
        warnings.filterwarnings("ignore", message="Pareto k", category=UserWarning)
        values = evaluation.evaluate(model, x, num_samples, seed, verbose=0)
    return {
        "encoder_snr": snr.encoder.median,
        "encoder_dsnr": snr.encoder.dsnr,
        "decoder_snr": snr.decoder.median,
        "decoder_dsnr": snr.decoder.dsnr,
        "active_units": float(use.active_units),
        "kl": use.kl,
        "mutual_information": use.mutual_information,
        "aggregate_kl": use.aggregate_kl,
        "bound_gap": values.iwae_bound - values.elbo,
        "negative_kl": values.negative_kl,
        "importance_ess": values.importance_ess,
        "num_untrusted": float(values.num_untrusted),
    }


class Diagnostics(keras.callbacks.Callback):
    """Adds `summarize`, with the prefix "diagnostics_", to the logs of every so many epochs.

    It must come before the callbacks that are to see the numbers, such as TensorBoard: Keras hands one dict to all of
    them in turn. Examples and noise are the same each time, so that the epochs can be compared.

    Args:
      x: array [N, ...], some tens or hundreds of examples.
      every: int, number of epochs between two looks; the first is at the end of epoch `every`.
      num_repeats: int, of `summarize`, as are those that follow.
      batch_size: int.
      num_samples: int.
      seed: int.

    Raises:
      ValueError: on a number out of range, or, when training begins, an x that does not fit the model.
    """

    prefix = "diagnostics_"

    def __init__(self, x, every=1, *, num_repeats=50, batch_size=20, num_samples=1000, seed=0):
        super().__init__()
        self.x = x
        self.every = integer("every", every, 1)
        self.options = {
            "num_repeats": integer("num_repeats", num_repeats, _LEAST_REPEATS),
            "batch_size": integer("batch_size", batch_size, 1),
            "num_samples": integer("num_samples", num_samples, 1),
            "seed": seed,
        }

    def on_train_begin(self, logs=None):
        _examples(self.model, self.x)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None and (epoch + 1) % self.every == 0:
            summary = summarize(self.model, self.x, **self.options)
            logs.update({self.prefix + name: value for name, value in summary.items()})


class _Passes(NamedTuple):
    """Traced loops over repeated gradients, the encoder's and the decoder's in one vector [P]."""

    moments: Callable
    ratios: Callable
    encoder_size: int


@per_model
def _passes(model, objective):
    # A model of its own: the objective may be another, and the cache must not hold on to its key.
    probe = ImportanceWeightedAutoencoder(model.encoder, model.decoder, model.prior, objective=objective, name="probe")
    probe.build((None, *model.data_shape))
    sizes = [sum(_size(v) for v in side) for side in (probe.encoder_variables, probe.decoder_variables)]
    number = tf.TensorSpec([], tf.int32)
    signature = [tf.TensorSpec([None, *model.data_shape]), tf.TensorSpec([2], tf.int32), number, number]

    def gradient(x, seed):
        computed = gradients.compute(probe, x, seed, 0, tf.shape(x)[0])  # All replicas look at the same batch.
        parts = [tf.reshape(part, [-1]) for part in (*computed.encoder, *computed.decoder)]
        return tf.concat([tf.cast(part, tf.float64) for part in parts], axis=0)

    @tf.function(input_signature=signature)
    def moments(x, seed, start, stop):
        return _stream(lambda repeat: gradient(x, particles.derive_seed(seed, repeat)), sum(sizes), start, stop)

    @tf.function(input_signature=[*signature, tf.TensorSpec([sum(sizes)], tf.float64)])
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


def _side(variables, snr, snr_of_groups, dsnr, dsnr_error):
    def summary(values):
        values = values[~np.isnan(values)]
        return (np.mean(values), np.median(values)) if len(values) else (np.nan, np.nan)

    mean, median = summary(snr)
    errors = np.std([summary(group) for group in snr_of_groups], axis=0, ddof=1) / np.sqrt(len(snr_of_groups))
    parts = np.split(snr, np.cumsum([_size(v) for v in variables], dtype=int))
    arrays = [part.reshape(v.shape) for part, v in zip(parts, variables, strict=False)]
    return SideSNR(arrays, *map(float, (mean, errors[0], median, errors[1], dsnr, dsnr_error)))


def _size(variable):
    return int(np.prod(variable.shape))


def _kl_by_dimension(posterior, prior, z):
    """float64 array [D], or None if one of the two does not factorise over the dimensions."""
    if not all(isinstance(d, tfd.Independent) and not d.distribution.event_shape.rank for d in (posterior, prior)):
        return None
    return np.mean(_kl(posterior.distribution, prior.distribution, z), axis=0)


def _kl(posterior, prior, z):
    """KL divergence of the batch members, float64 array, from the draws z [S, ...] if there is no closed form."""
    try:
        divergence = tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        divergence = tf.reduce_mean(posterior.log_prob(z) - prior.log_prob(z), axis=0)
    return np.asarray(divergence, np.float64)


def _examples(model, x):
    x = likelihood.checked_examples(model, x)
    if not len(x):
        raise ValueError("x must hold at least one example: received an empty array.")
    return x
