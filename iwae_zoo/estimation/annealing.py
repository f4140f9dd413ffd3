"""log p(x) by annealed importance sampling, and bidirectional Monte Carlo, which sandwiches it on simulated data.

A path of densities leads from one that can be sampled, p0(z), to the joint:

    log f_beta(z) = (1 - beta) log p0(z) + beta log p(x, z),   beta from 0 to 1

Chains walk along it by Hamiltonian Monte Carlo and gather log weights on the way; `paths` has the steps. Their mean
weight is an unbiased estimate of p(x), with far less variance than importance sampling where the encoder is far from
p(z | x). Walked backwards from an exact posterior sample, which is known for an x that the model itself has drawn, the
same path gives an unbiased estimate of 1 / p(x), and so an upper bound.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from iwae_zoo._checks import checked_seed, integer
from iwae_zoo._precision import tensor_float_32
from iwae_zoo._tracing import Networks, per_model
from iwae_zoo.estimation import laplace, paths, tiles, walks
from iwae_zoo.estimation.rows import by_rows, checked_answers, numbered
from iwae_zoo.estimation.walks import schedule
from iwae_zoo.model import dreams, examples, particles

__all__ = [
    "AnnealedEstimate",
    "Sandwich",
    "estimate_log_prob",
    "estimate_rows",
    "is_possible",
    "sample_posterior",
    "sandwich",
    "schedule",
]

# Examples per call: how often the progress bar moves.
_ROWS = 20


class AnnealedEstimate(NamedTuple):
    """log p(x) of each example by annealed importance sampling; float64 arrays [B].

    Attributes:
      log_prob: log of the mean weight of the chains, nats. Its expectation is below log p(x). -inf where x is outside
        the likelihood's support.
      standard_error: of `log_prob` over the chains, nats, by the delta method; infinite for one chain. Trust it where
        `ess` is a good part of the number of chains.
      ess: effective number of chains (Kong), between 1 and `num_chains`; 0 outside the support.
      pareto_k: Pareto shape of the chains' largest weights; see `psis`. Of few chains it says little.
      acceptance_rate: mean acceptance probability of the transitions; NaN for 2 temperatures, which have none.
    """

    log_prob: np.ndarray
    standard_error: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
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


@tensor_float_32(False)
def estimate_log_prob(
    model,
    x,
    num_temperatures=None,
    num_chains=None,
    num_leapfrog_steps=None,
    seed=0,
    *,
    initial="laplace",
    first_row=0,
    tile_rows=None,
    verbose=1,
):
    """Estimates log p(x) of each example by annealed importance sampling: a stochastic lower bound.

    log_prob[b] = log( (1 / C) sum_c w_cb ),   log w_cb = sum_{t > 1} (beta_t - beta_{t-1}) log( p(x_b, z_t) / p0(z_t) )

    where z_2 ~ p0(z) and z_{t+1} is one HMC transition away from z_t, with f_beta_t as its invariant density.

    Args:
      model: `ImportanceWeightedAutoencoder` with a continuous z.
      x: array [B, ...], finite.
      num_temperatures: int, length of the path; 2 is importance sampling from p0. None for what suits `initial`.
      num_chains: int, independent chains C for each example. None for what suits `initial`.
      num_leapfrog_steps: int, gradients per transition. None for what suits `initial`.
      seed: int, 0 <= seed < 2^31. Example i draws from the stateless seed (`first_row` + i, `seed`), whatever the other
        examples are.
      initial: p0. "laplace" for a mixture of the Gaussian at the mode of p(z | x), which has the largest share, with
        q(z | x) and p(z); the chains then move in the coordinates in which that Gaussian is standard, and need far
        fewer steps. "encoder" for q(z | x), "prior" for p(z).
      first_row: int, index of the first example within a larger data set.
      tile_rows: int, number of examples that are annealed at once, 1 or a multiple of 48; None for what suits the
        device (`tiles.choose`): 1 on a CPU. Of one number answers depend on their row alone, bit for bit; of another
        they take the same random numbers, and differ by what rounding makes of them.
      verbose: 0 for no progress bar.

    Returns:
      `AnnealedEstimate`.

    Raises:
      ValueError: on an argument out of range, an x of another shape or with NaN in it, a model with NaN weights, one
        whose z is not continuous, or one that cannot be in tiles, and has to be.
      MemoryError: if the device has no memory for so many chains, with how many would fit, or what else there is to do.

    #### References
    Neal. Annealed Importance Sampling. Statistics and Computing 2001, section 2. https://arxiv.org/abs/physics/9803008
    Wu, Burda, Salakhutdinov, Grosse. On the Quantitative Analysis of Decoder-Based Generative Models. ICLR 2017.
    https://arxiv.org/abs/1611.04273
    """
    budget = walks.Budget.of(initial, num_temperatures, num_chains, num_leapfrog_steps)
    x = examples.some(model, x)
    rows = numbered(len(x), first_row)
    return estimate_rows(model, x, rows, seed, budget, tile_rows, verbose)


def is_possible(model):
    """Whether a model's z is continuous, so that chains can move it along gradients."""
    return paths.is_continuous(model.encoder.posterior(tf.zeros([1, *model.data_shape])))


def check_possible(model, initial="laplace", **budget):
    """Raises ValueError, before anything is computed, where `estimate_log_prob` would, whatever x is."""
    walks.Budget.of(initial, **budget)
    paths.check_continuous(model.encoder.posterior(tf.zeros([1, *model.data_shape])))


def check_drawn(model):
    """Raises ValueError where `sandwich` can draw no x from a model."""
    dreams.check(model.decoder, "A sandwich", "estimate_log_prob: of data there is no bound from above")


@tensor_float_32(False)
def estimate_rows(model, x, rows, seed, budget, tile_rows=None, verbose=1, instead=None):
    """As `estimate_log_prob`, for any rows of a data set.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: float32 array [B, ...].
      rows: int array [B], the rows of the examples, for their seeds.
      seed: int.
      budget: `walks.Budget`.
      tile_rows: as in `estimate_log_prob`.
      verbose: 0 for no progress bar.
      instead: str, as in `tiles.enough`, of a caller whose user cannot choose the number of chains.

    Returns:
      `AnnealedEstimate`.
    """
    tile_rows = _tile_rows(tile_rows, model, budget)
    estimate = _estimate_function(model, budget.traced, tile_rows)
    arguments = (rows, checked_seed(seed), [x], [budget.betas], verbose)
    with _enough(model, budget, tile_rows, instead):
        return AnnealedEstimate(**_in_batches(estimate, _batch_size(model, tile_rows), *arguments))


@tensor_float_32(False)
def sandwich(
    model,
    num_examples=20,
    num_temperatures=None,
    num_chains=None,
    num_leapfrog_steps=None,
    seed=0,
    *,
    initial="laplace",
    tile_rows=None,
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
      initial: "laplace", "prior" or "encoder".
      tile_rows: int, or None.
      verbose: 0 for no progress bar.

    Returns:
      `Sandwich`.

    Raises:
      ValueError: as `estimate_log_prob` and `check_drawn`.
      MemoryError: as `estimate_log_prob`.

    #### References
    Grosse, Ghahramani, Adams. Sandwiching the Marginal Likelihood using Bidirectional Monte Carlo. 2015.
    https://arxiv.org/abs/1511.02543
    """
    budget = walks.Budget.of(initial, num_temperatures, num_chains, num_leapfrog_steps)
    num_examples, seed = integer("num_examples", num_examples), checked_seed(seed)
    check_drawn(model)
    # The examples' rows are none of a data set's.
    z_seed, x_seed = (particles.derive_seed(seed, -1, label) for label in range(2))
    z = model.prior.distribution().sample([num_examples], seed=z_seed)  # [N, D]
    x = examples.some(model, model.decoder.likelihood(z).sample(seed=x_seed))
    tile_rows = _tile_rows(tile_rows, model, budget)
    bracket = _sandwich_function(model, budget.traced, tile_rows)
    arguments = (np.arange(num_examples), seed, [x, z.numpy()], [budget.betas], verbose)
    with _enough(model, budget, tile_rows):
        found = _in_batches(bracket, _batch_size(model, tile_rows), *arguments)
    return Sandwich(
        x=x,
        lower=found["log_prob"],
        lower_standard_error=found["standard_error"],
        upper=-found["reverse_log_prob"],
        upper_standard_error=found["reverse_standard_error"],
        gap=-found["reverse_log_prob"] - found["log_prob"],
    )


@tensor_float_32(False)
def sample_posterior(model, x, num_samples=1, seed=0, *, initial="laplace", tile_rows=None, verbose=1, **budget):
    """Draws z from p(z | x), nearly: one of the annealed chains, chosen in proportion to its weight.

    z = z_c with probability w_c / sum_c w_c, and then a few transitions that leave p(z | x) invariant

    The draws' distribution tends to the posterior with the number of chains and of temperatures; how near it is, `ess`
    tells: with all chains effective they are the posterior's.

    Args:
      model: `ImportanceWeightedAutoencoder` with a continuous z.
      x: array [B, ...], finite.
      num_samples: int, number S of draws for each example, each with chains of its own.
      seed: int.
      initial: as in `estimate_log_prob`.
      tile_rows: the same.
      verbose: 0 for no progress bar.
      **budget: `num_temperatures`, `num_chains` and `num_leapfrog_steps` of `estimate_log_prob`.

    Returns:
      (z, ess): float array [S, B, D], and float64 array [B], the effective number of chains, averaged over the draws.
      NaN and 0 for an x outside the likelihood's support, which has no posterior.

    Raises:
      ValueError, MemoryError: as `estimate_log_prob`.
    """
    chosen = walks.Budget.of(initial, **budget)
    x = examples.some(model, x)
    tile_rows = _tile_rows(tile_rows, model, chosen)
    draw = _sample_function(model, chosen.traced, tile_rows)
    arguments = (np.arange(len(x)), checked_seed(seed), [x])
    with _enough(model, chosen, tile_rows):
        found = [
            _in_batches(draw, _batch_size(model, tile_rows), *arguments, [chosen.betas, np.int32(i)], verbose)
            for i in range(integer("num_samples", num_samples))
        ]
    return np.stack([part["z"] for part in found]), np.mean([part["ess"] for part in found], axis=0)


@per_model
def _estimate_function(model, budget, tile_rows=1):
    networks = Networks.of(model)

    def one(seed, x, betas):
        found = walks.estimate(networks, x, seed, budget, betas)
        return {name: found[name] for name in AnnealedEstimate._fields}

    outputs = {name: walks.OUTPUTS[name] for name in AnnealedEstimate._fields}
    return by_rows(model, one, [tf.TensorSpec(model.data_shape)], [_BETAS], outputs, tile_rows)


@per_model
def _sandwich_function(model, budget, tile_rows=1):
    networks = Networks.of(model)
    names = ("log_prob", "standard_error")

    def one(seed, x, z, betas):
        forward, reverse = walks.bracket(networks, x, z, seed, budget, betas)
        return {name: forward[name] for name in names} | {f"reverse_{name}": reverse[name] for name in names}

    inputs = [tf.TensorSpec(model.data_shape), _latent(model)]
    outputs = {f"{prefix}{name}": walks.OUTPUTS[name] for prefix in ("", "reverse_") for name in names}
    return by_rows(model, one, inputs, [_BETAS], outputs, tile_rows)


@per_model
def _sample_function(model, budget, tile_rows=1):
    networks = Networks.of(model)

    def one(seed, x, betas, draw):
        drawn = walks.sample(networks, x, particles.derive_seed(seed, draw), budget, betas)
        return {name: drawn[name] for name in outputs}

    shared = [_BETAS, tf.TensorSpec([], tf.int32)]
    outputs = {"z": _latent(model), "ess": walks.OUTPUTS["ess"]}
    return by_rows(model, one, [tf.TensorSpec(model.data_shape)], shared, outputs, tile_rows)


_BETAS = tf.TensorSpec([None], tf.float64)


def _latent(model):
    return tf.TensorSpec([model.latent_size], model.prior.distribution().dtype)


def _directions(model, budget):
    """Along how many directions the mode of p(z | x) is sought at once, in the place of as many chains: int."""
    return min(model.latent_size, laplace.DIRECTIONS) if paths.INITIAL[budget.initial].whitened else 1


def _tile_rows(tile_rows, model, budget):
    """`tiles.choose` for the chains of a budget."""
    return tiles.choose(tile_rows, model, max(budget.num_chains, _directions(model, budget)), backward=True)


def _enough(model, budget, tile_rows, instead=None):
    """`tiles.enough` for the chains of a budget, whose densities are gone back through."""
    options = {"name": "num_chains", "kind": "chain", "backward": True, "instead": instead}
    least = max(_directions(model, budget), budget.num_chains if instead else 1)
    return tiles.enough(tile_rows, model, budget.num_chains, least=least, **options)


def _batch_size(model, tile_rows):
    """Rows of one call, between two moves of the progress bar: whole tiles for each replica."""
    tiles_of_all = tile_rows * model.distribute_strategy.num_replicas_in_sync
    return tiles_of_all * -(-_ROWS // tiles_of_all)


def _in_batches(function, size, rows, seed, arrays, shared, verbose):
    """The outputs of a function of `by_rows` for all rows, so many in a call, with a progress bar."""
    progress = keras.utils.Progbar(len(rows), verbose=verbose, unit_name="example")
    parts = []
    for first in range(0, len(rows), size):
        part = slice(first, first + size)
        found = function(np.int32(rows[part]), seed, *(array[part] for array in arrays), *shared)
        parts.append({name: value.numpy() for name, value in found.items()})
        for name in {"log_prob", "ess"} & set(parts[-1]):
            checked_answers(parts[-1][name])
        progress.update(min(first + size, len(rows)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
