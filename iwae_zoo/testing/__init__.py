"""Models with closed forms, to prove estimators against; shared by tests, benchmarks and studies."""

from iwae_zoo.testing.enumerable import Enumerable
from iwae_zoo.testing.linear_gaussian import LinearGaussian, LinearGaussianDecoder, LinearGaussianEncoder
from iwae_zoo.testing.stacked_linear_gaussian import StackedLinearGaussian

__all__ = ["Enumerable", "LinearGaussian", "LinearGaussianDecoder", "LinearGaussianEncoder", "StackedLinearGaussian"]
