"""What networks end in: distributions that are fast over many particles."""

from iwae_zoo.distributions.bernoulli import IndependentBernoulli
from iwae_zoo.distributions.gaussian import DiagonalNormal, StandardNormal

__all__ = ["DiagonalNormal", "IndependentBernoulli", "StandardNormal"]
