"""What networks end in: heads that read numbers as distributions, and distributions that are fast over particles."""

from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.distributions.bernoulli import IndependentBernoulli
from iwae_zoo.distributions.gaussian import DiagonalNormal, StandardNormal
from iwae_zoo.distributions.stacked import Stacked
from iwae_zoo.distributions.values import IndependentValues

__all__ = [
    "DiagonalNormal",
    "IndependentBernoulli",
    "IndependentValues",
    "Stacked",
    "StandardNormal",
    "likelihoods",
    "posteriors",
]
