"""Models with closed forms, to prove estimators against; shared by tests, benchmarks and studies."""

from iwae_zoo.testing.linear_gaussian import LinearGaussian, LinearGaussianDecoder, LinearGaussianEncoder

__all__ = ["LinearGaussian", "LinearGaussianDecoder", "LinearGaussianEncoder"]
