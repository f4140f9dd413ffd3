"""What is reached without a latent variable: independent values. A model that is worth something lies above it."""

import numpy as np

from iwae_zoo.distributions import likelihoods

__all__ = ["baseline", "bernoulli_baseline", "labelled_baseline"]


def baseline(head, x):
    """Mean log p(x) of the best distribution that does not depend on a latent variable: independent values.

    Args:
      head: `likelihoods.Likelihood`, fitted to training data.
      x: array [N, ...], in its support.

    Returns:
      float, in the head's units.

    Raises:
      ValueError: if the head was not fitted.
    """
    independent = head.independent()
    return float(np.mean(independent.log_prob(np.asarray(x, independent.dtype.as_numpy_dtype))))


def labelled_baseline(head, training_values, x):
    """`baseline` of a head as it is fitted to training values, and what it is called beside a bound.

    Args:
      head: `likelihoods.Likelihood`.
      training_values: array [N, ...] or `Rows`.
      x: array [N, ...], in its support.

    Returns:
      (str, float), the latter in the head's units.
    """
    values = "columns" if np.ndim(x) == 2 else "pixels"
    return f"independent {values} ({head.title})", baseline(head.fitted(training_values), x)


def bernoulli_baseline(train_mean, x, smoothing=1e-3):
    """`baseline` of independent Bernoulli values from their training means.

    Args:
      train_mean: array of the shape of one x, in [0, 1].
      x: array [N, ...] of zeros and ones.
      smoothing: float, how far the means are kept from 0 and 1.

    Returns:
      float, nats per example.
    """
    head = likelihoods.Bernoulli(smoothing=smoothing)
    return baseline(head.fitted(np.asarray(train_mean, np.float64)[np.newaxis]), x)
