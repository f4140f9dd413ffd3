"""log p(x) by annealed importance sampling, and bidirectional Monte Carlo, which sandwiches it on simulated data.

A path of densities leads from one that can be sampled, p0(z), to the joint:

    log f_beta(z) = (1 - beta) log p0(z) + beta log p(x, z),   beta from 0 to 1

Chains walk along it by Hamiltonian Monte Carlo and gather log weights on the way. Their mean weight is an unbiased
estimate of p(x), with far less variance than importance sampling where p0 is far from p(z | x): the way to check
`likelihood` where its Pareto k is large. Walked backwards from an exact posterior sample, which is known for an x that
the model itself has drawn, the same path gives an unbiased estimate of 1 / p(x), and so an upper bound.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo._checks import integer
from iwae_zoo._tracing import Networks, per_model
from iwae_zoo.estimation import likelihood
from iwae_zoo.model import particles
from iwae_zoo.objectives import bounds

__all__ = ["AnnealedEstimate", "Sandwich", "estimate_log_prob", "sandwich", "schedule"]

# Most chains in one call, over all its examples: enough to keep the processor busy, few enough that memory is small.
_CHAINS_AT_ONCE = 1000
# The best acceptance rate of HMC in many dimensions (Beskos et al. 2013).
_TARGET_ACCEPTANCE = 0.65
# Adaptation of the step size: transitions at the path's start, transitions along it, and change of log step size per
# unit of excess acceptance.
_WARM_UP, _PILOT, _ADAPTATION_RATE = 50, 200, 0.2
_FIRST_STEP_SIZE = 0.3
# Sub-streams of the seed.
_ADAPTING, _FORWARD, _REVERSE, _SIMULATING = range(4)


class AnnealedEstimate(NamedTuple):
    """log p(x) of each example by annealed importance sampling; float64 arrays [B].

    Attributes:
      log_prob: log of the mean weight of the chains, nats. Its expectation is below log p(x). -inf where x is outside
        the likelihood's support.
      standard_error: of `log_prob` over the chains, nats, by the delta method; infinite for one chain. Trust it where
        `ess` is a good part of the number of chains.
      ess: effective number of chains (Kong), between 1 and `num_chains`; 0 outside the support.
      acceptance_rate: mean acceptance probability of the transitions; NaN for 2 temperatures, which have none.
    """

    log_prob: np.ndarray
    standard_error: np.ndarray
    ess: np.ndarray
    acceptance_rate: np.ndarray


class Sandwich(NamedTuple):
    """Bounds on log p(x) from below and above, for x drawn from the model; float64 arrays [N].

    Both hold in expectation; with few temperatures the weights, the upper bound's above all, can have heavy tails.
    How far the path can be trusted is best read off the mean gap over the examples, which are independent, with its
    standard error std(gap) / sqrt(N).

    Attributes:
      x: float32 array [N, ...], the simulated examples.
      lower: stochastic lower bound, nats.
      lower_standard_error: of `lower` over the chains, nats.
      upper: stochastic upper bound, nats.
      upper_standard_error: of `upper` over the chains, nats. The chains of an example share their exact posterior
        sample, whose own contribution to the error this leaves out.
      gap: `upper` - `lower`, nats: it is in expectation at least the error of either.
    """

    x: np.ndarray
    lower: np.ndarray
    lower_standard_error: np.ndarray
    upper: np.ndarray
    upper_standard_error: np.ndarray
    gap: np.ndarray


def schedule(num_temperatures):
    """Inverse temperatures on a sigmoid, dense at both ends of the path.

    beta_t = (s_t - s_1) / (s_T - s_1),   s_t = sigmoid(4 (2 t - T - 1) / (T - 1)),   t = 1 ... T

    Args:
      num_temperatures: int, T, at least 2.

    Returns:
      float64 array [T], increasing from exactly 0 to exactly 1.

    Raises:
      ValueError: if there are fewer than 2 temperatures.

    #### Examples
    >>> schedule(3)
    array([0. , 0.5, 1. ])

    #### References
    Wu, Burda, Salakhutdinov, Grosse. On the Quantitative Analysis of Decoder-Based Generative Models. ICLR 2017.
    https://arxiv.org/abs/1611.04273
    """
    integer("num_temperatures", num_temperatures, least=2)
    sigmoid = 1.0 / (1.0 + np.exp(-np.linspace(-4.0, 4.0, num_temperatures)))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def estimate_log_prob(
    model, x, num_temperatures=1000, num_chains=16, num_leapfrog_steps=10, seed=0, *, initial="prior", verbose=1
):
    """Estimates log p(x) of each example by annealed importance sampling: a stochastic lower bound.

    log_prob[b] = log( (1 / C) sum_c w_cb ),   log w_cb = sum_{t > 1} (beta_t - beta_{t-1}) log( p(x_b, z_t) / p0(z_t) )

    where z_2 ~ p0(z) and z_{t+1} is one HMC transition away from z_t, with f_beta_t as its invariant density.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [B, ...], finite.
      num_temperatures: int, length of the `schedule`; 2 is importance sampling from p0.
      num_chains: int, independent chains C for each example.
      num_leapfrog_steps: int, gradients per transition.
      seed: int. The same x and seed give the same answer.
      initial: p0, "prior" for p(z), or "encoder" for q(z | x), which is nearer to p(z | x) as a rule.
      verbose: 0 for no progress bar.

    Returns:
      `AnnealedEstimate`.

    Raises:
      ValueError: on an argument out of range, an x of another shape or with NaN in it, or a model with NaN weights.

    #### References
    Neal. Annealed Importance Sampling. Statistics and Computing 2001, section 2. https://arxiv.org/abs/physics/9803008
    Wu, Burda, Salakhutdinov, Grosse. On the Quantitative Analysis of Decoder-Based Generative Models. ICLR 2017.
    https://arxiv.org/abs/1611.04273
    """
    betas = schedule(num_temperatures)
    settings = _checked_settings(num_chains, num_leapfrog_steps, initial)
    (forward,) = _run(model, settings, betas, seed, verbose, likelihood.checked_examples(model, x))
    return forward


def sandwich(
    model,
    num_examples=20,
    num_temperatures=1000,
    num_chains=16,
    num_leapfrog_steps=10,
    seed=0,
    *,
    initial="prior",
    verbose=1,
):
    """Bounds log p(x) from both sides for x drawn from the model: bidirectional Monte Carlo.

    z* ~ p(z),   x ~ p(x | z*),   upper[n] = -log( (1 / C) sum_c 1 / w_cn )

    where the chains that gather 1 / w start at z*, an exact sample of p(z | x), and walk the path from beta = 1 to 0.
    The lower bound is that of `estimate_log_prob`.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      num_examples: int, N.
      num_temperatures: int, as in `estimate_log_prob`, like the other arguments.
      num_chains: int, in each direction.
      num_leapfrog_steps: int.
      seed: int, of the examples too.
      initial: "prior" or "encoder".
      verbose: 0 for no progress bar.

    Returns:
      `Sandwich`.

    Raises:
      ValueError: as `estimate_log_prob`.

    #### References
    Grosse, Ghahramani, Adams. Sandwiching the Marginal Likelihood using Bidirectional Monte Carlo. 2015.
    https://arxiv.org/abs/1511.02543
    """
    betas = schedule(num_temperatures)
    settings = _checked_settings(num_chains, num_leapfrog_steps, initial)
    integer("num_examples", num_examples)
    z_seed, x_seed = (particles.derive_seed(seed, 0, _SIMULATING, label) for label in range(2))
    z = model.prior.distribution().sample([num_examples], seed=z_seed)  # [N, D]
    x = likelihood.checked_examples(model, model.decoder.likelihood(z).sample(seed=x_seed))
    forward, reverse = _run(model, settings, betas, seed, verbose, x, z)
    return Sandwich(
        x=x,
        lower=forward.log_prob,
        lower_standard_error=forward.standard_error,
        upper=-reverse.log_prob,
        upper_standard_error=reverse.standard_error,
        gap=-reverse.log_prob - forward.log_prob,
    )


class _Path(NamedTuple):
    """The path f_beta for a batch of examples; z is [C, B, D]."""

    decoder: keras.Layer
    prior: keras.Layer
    start: tfp.distributions.Distribution
    x: tf.Tensor
    num_leapfrog_steps: int

    def log_ratio(self, z):
        """The derivative of log f_beta by beta, log p(x, z) - log p0(z): [C, B]."""
        return particles.log_joint(self.decoder, self.prior, self.x, z) - self.start.log_prob(z)

    def move(self, z, beta, step_size, seed):
        """One transition that leaves f_beta invariant: the new z, and its acceptance probability [C, B]."""
        beta = tf.cast(beta, z.dtype)
        # With a fixed step size a trajectory of the prior's unit variances can come back to where it began.
        jitter = tf.random.stateless_uniform(tf.shape(z)[:2], particles.derive_seed(seed, 0), 0.5, 1.5, tf.float64)
        kernel = tfp.mcmc.HamiltonianMonteCarlo(
            lambda z: self.start.log_prob(z) + beta * self.log_ratio(z),
            step_size=tf.cast(jitter * step_size, z.dtype)[..., tf.newaxis],  # [C, B, 1]
            num_leapfrog_steps=self.num_leapfrog_steps,
        )
        z, results = kernel.one_step(z, kernel.bootstrap_results(z), particles.derive_seed(seed, 1))
        return z, tf.exp(tf.minimum(tf.cast(results.log_accept_ratio, tf.float64), 0.0))


def _adapt(path, seed, z):
    """Step sizes [_PILOT, B] along the path, found by chains of their own from z."""
    betas = tf.constant(np.concatenate([np.zeros(_WARM_UP), schedule(_PILOT)]))

    def transition(t, z, log_step_size, log_step_sizes):
        z, acceptance = path.move(z, betas[t], tf.exp(log_step_size), particles.derive_seed(seed, t))
        log_step_size += _ADAPTATION_RATE * (tf.reduce_mean(acceptance, axis=0) - _TARGET_ACCEPTANCE)
        return t + 1, z, log_step_size, log_step_sizes.write(t, log_step_size)

    first = tf.fill(tf.shape(z)[1:2], tf.constant(np.log(_FIRST_STEP_SIZE), tf.float64))
    length = _WARM_UP + _PILOT
    log_step_sizes = tf.TensorArray(tf.float64, length, element_shape=[None])
    *_, log_step_sizes = tf.while_loop(lambda t, *_: t < length, transition, (0, z, first, log_step_sizes))
    return tf.exp(log_step_sizes.stack()[_WARM_UP:])


def _anneal(path, seed, z, betas, step_sizes):
    """Log weights and mean acceptance [C, B] of chains that walk from z through `betas` [T], in either direction.

    Towards larger beta the mean weight estimates p(x) where z is drawn from p0; towards smaller beta, 1 / p(x) where z
    is drawn from p(z | x). Each increment is weighed before the transition that has its end as invariant density.
    """
    increments = betas[1:] - betas[:-1]

    def transition(t, z, log_weights, acceptance):
        log_weights += increments[t - 1] * tf.cast(path.log_ratio(z), tf.float64)
        z, accepted = path.move(z, betas[t], step_sizes[t], particles.derive_seed(seed, t))
        return t + 1, z, log_weights, acceptance + accepted

    zeros = tf.zeros(tf.shape(z)[:2], tf.float64)
    # Nothing is weighed after a transition at the path's end: there is none.
    last = tf.size(betas) - 1
    _, z, log_weights, acceptance = tf.while_loop(lambda t, *_: t < last, transition, (1, z, zeros, zeros))
    log_weights += increments[-1] * tf.cast(path.log_ratio(z), tf.float64)
    return log_weights, acceptance / tf.cast(last - 1, tf.float64)


def _run(model, settings, betas, seed, verbose, x, *posterior_sample):
    """`AnnealedEstimate` of p(x); where exact posterior samples [B, D] are given, another of 1 / p(x)."""
    if not len(x):
        raise ValueError("There is no example to estimate log p(x) of: received an empty x.")
    anneal = _batch_function(model, settings, bool(posterior_sample))
    rows = max(1, _CHAINS_AT_ONCE // settings.num_chains)
    progress = keras.utils.Progbar(len(x), verbose=verbose, unit_name="example")
    parts = []
    for first in range(0, len(x), rows):
        batch = (array[first : first + rows] for array in (x, *posterior_sample))
        directions = anneal(particles.derive_seed(seed, first), betas, *batch)
        parts.append([_summarize(*direction) for direction in directions])
        progress.update(min(first + rows, len(x)), values=[("log_prob", np.mean(parts[-1][0].log_prob))])
    return [AnnealedEstimate(*map(np.concatenate, zip(*part, strict=True))) for part in zip(*parts, strict=True)]


def _walk(networks, settings, seed, betas, x, *posterior_sample):
    """Anneals a batch; TensorFlow operations only. The log weights and acceptance [C, B] of each direction."""
    encoder, decoder, prior = networks
    from_prior = settings.initial == "prior"
    start = prior.distribution() if from_prior else encoder.posterior(x)
    shape = [settings.num_chains, tf.shape(x)[0]] if from_prior else [settings.num_chains]
    path = _Path(decoder, prior, start, x, settings.num_leapfrog_steps)

    def draw_and_walk(stream, walk, *arguments):
        z = start.sample(shape, seed=particles.derive_seed(seed, stream, 0))  # [C, B, D]
        return walk(path, particles.derive_seed(seed, stream, 1), z, *arguments)

    # Step sizes that followed the acceptance of the very chains that are weighed would make each transition depend on
    # the past, and lose its invariant density, on which the bounds rest. So other chains choose them beforehand. These
    # start from p0 for both directions: the exact posterior sample must not choose the transitions it goes through.
    step_sizes = draw_and_walk(_ADAPTING, _adapt)
    nearest = tf.cast(tf.round(tf.linspace(0.0, _PILOT - 1.0, tf.size(betas))), tf.int32)
    step_sizes = tf.gather(step_sizes, nearest)  # [T, B]
    directions = [draw_and_walk(_FORWARD, _anneal, betas, step_sizes)]
    for z in posterior_sample:
        z = tf.repeat(z[tf.newaxis], settings.num_chains, axis=0)  # [C, B, D]
        walk_seed = particles.derive_seed(seed, _REVERSE)
        directions.append(_anneal(path, walk_seed, z, betas[::-1], step_sizes[::-1]))
    return directions


@per_model
def _batch_function(model, settings, bidirectional):
    """The traced `_walk` of a model and settings."""
    signature = [
        tf.TensorSpec([2], tf.int32),
        tf.TensorSpec([None], tf.float64),
        tf.TensorSpec([None, *model.data_shape], tf.float32),
    ]
    if bidirectional:
        signature.append(tf.TensorSpec([None, model.latent_size], model.prior.distribution().dtype))
    walk = functools.partial(_walk, Networks.of(model), settings)
    return tf.function(walk, input_signature=signature, autograph=False)


def _summarize(log_weights, acceptance):
    """`AnnealedEstimate` of log weights and acceptance [C, B]."""
    count = len(log_weights)
    grouped = log_weights[tf.newaxis]  # [1, C, B]
    log_prob = bounds.ImportanceWeighted().value(grouped).numpy()
    if np.isnan(log_prob).any():
        raise ValueError(
            "The chains' log weights are NaN for an x that is finite: the model's weights are not finite, or its "
            "densities overflow. Restore weights from before training diverged."
        )
    inside = log_prob > -np.inf
    ess = np.where(inside, bounds.importance_ess(grouped).numpy(), 0.0)
    # The delta method: sum w^2 / (sum w)^2 is 1 / ess.
    excess = np.maximum(1.0 / np.where(inside, ess, count) - 1.0 / count, 0.0)
    error = np.sqrt(excess * count / (count - 1)) if count > 1 else np.where(inside, np.inf, 0.0)
    return AnnealedEstimate(log_prob, error, ess, tf.reduce_mean(acceptance, axis=0).numpy())


class _Settings(NamedTuple):
    num_chains: int
    num_leapfrog_steps: int
    initial: str


def _checked_settings(num_chains, num_leapfrog_steps, initial):
    integer("num_chains", num_chains)
    integer("num_leapfrog_steps", num_leapfrog_steps)
    if initial not in ("prior", "encoder"):
        raise ValueError(f"initial must be 'prior' or 'encoder': received {initial!r}.")
    return _Settings(num_chains, num_leapfrog_steps, initial)
