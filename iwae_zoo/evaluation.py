"""What a trained model is worth on held-out data, beside what an untrained one and a trivial one are."""

import dataclasses

import numpy as np

from iwae_zoo import likelihood

__all__ = ["Evaluation", "bernoulli_baseline", "evaluate"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Averages over a data set, in nats per example where not stated otherwise, each with its standard error.

    Attributes:
      num_examples: int.
      particles: int, M K, the number of particles of the bound.
      iwae_bound: importance-weighted bound at M K particles.
      iwae_bound_error: its standard error.
      log_prob: importance-sampled log p(x).
      log_prob_error: its standard error, over data and samples.
      log_prob_sampling_error: the part of it that more samples would reduce.
      num_samples: int, particles per example of `log_prob`.
      negative_kl: -KL(Q || P) = iwae_bound - log_prob, of the distributions over M K particles (article, eq. 11-12).
      negative_kl_error: its standard error, example by example.
      elbo: evidence lower bound.
      importance_ess: effective number of the M K particles.
      num_untrusted: int, examples whose Pareto k is above 0.7.
    """

    num_examples: int
    particles: int
    iwae_bound: float
    iwae_bound_error: float
    log_prob: float
    log_prob_error: float
    log_prob_sampling_error: float
    num_samples: int
    negative_kl: float
    negative_kl_error: float
    elbo: float
    importance_ess: float
    num_untrusted: int


def evaluate(model, x, num_samples=5000, seed=0, *, m=None, k=None, verbose=1, **options):
    """Evaluates a model on a data set.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...].
      num_samples: int, particles per example for log p(x).
      seed: int.
      m: int, groups of particles of the bound; the model's objective's by default.
      k: int, particles in a group; the same.
      verbose: 0 for no progress bar.
      **options: of `likelihood.evaluate_log_prob`.

    Returns:
      `Evaluation`.
    """
    count = (m or model.objective.m) * (k or model.objective.k)
    # With M K samples the importance-sampled log p(x) is, example by example, a draw of the bound at M K particles.
    # Another seed than below, so that the two are independent.
    bound = likelihood.estimate_dataset(model, x, count, seed + 1, verbose=0)
    marginal = likelihood.evaluate_log_prob(model, x, num_samples, seed, verbose=verbose, **options)
    inside = marginal.examples.in_support
    iwae_bound, iwae_bound_error = _mean_and_error(bound.log_prob[inside])
    negative_kl, negative_kl_error = _mean_and_error(bound.log_prob[inside] - marginal.examples.log_prob[inside])
    return Evaluation(
        num_examples=len(inside),
        particles=count,
        iwae_bound=iwae_bound,
        iwae_bound_error=iwae_bound_error,
        log_prob=marginal.log_prob,
        log_prob_error=marginal.standard_error,
        log_prob_sampling_error=marginal.sampling_standard_error,
        num_samples=num_samples,
        negative_kl=negative_kl,
        negative_kl_error=negative_kl_error,
        elbo=marginal.elbo,
        importance_ess=float(np.mean(bound.ess[inside])),
        num_untrusted=marginal.num_untrusted,
    )


def bernoulli_baseline(train_mean, x, smoothing=1e-3):
    """Mean log p(x) of independent Bernoulli pixels with the training set's means: what no latent variable can do.

    Args:
      train_mean: array of the shape of one x, in [0, 1].
      x: array [N, ...] of zeros and ones.
      smoothing: float, how far the means are kept from 0 and 1.

    Returns:
      float, nats per example.
    """
    mean = np.clip(train_mean, smoothing, 1.0 - smoothing)
    per_pixel = x * np.log(mean) + (1.0 - x) * np.log1p(-mean)
    return float(per_pixel.reshape(len(x), -1).sum(axis=1).mean())


def _mean_and_error(values):
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.inf
    return float(np.mean(values)), float(error)
