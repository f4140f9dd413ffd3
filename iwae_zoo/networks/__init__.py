"""Encoders, decoders and priors: Keras layers with one method that returns a TFP distribution.

    class Encoder(keras.Layer):  def posterior(self, x)      # batch [B], event [D]
    class Decoder(keras.Layer):  def likelihood(self, z)     # z [..., D] -> batch [...], event = shape of one x
    class Prior(keras.Layer):    def distribution(self)      # batch [], event [D]

A decoder whose `takes_missing` is true takes x with NaN for what is missing, and so does its encoder.

Any Keras layer that keeps one of these methods can take its place in the model. Those here are a body, which knows
nothing of probabilities, and a head of `distributions`, which knows nothing of layers.
"""

from iwae_zoo.distributions import DiagonalNormal, IndependentBernoulli, Stacked, StandardNormal
from iwae_zoo.networks import bodies
from iwae_zoo.networks.convolution import DownConvolution, UpConvolution
from iwae_zoo.networks.decoder import Decoder, MLPDecoder
from iwae_zoo.networks.encoder import Encoder, MLPEncoder
from iwae_zoo.networks.perceptron import Perceptron
from iwae_zoo.networks.prior import (
    BernoulliPrior,
    CategoricalPrior,
    CouplingFlowPrior,
    MixtureOfNormalsPrior,
    RelaxedBernoulliPrior,
    RelaxedCategoricalPrior,
    StandardNormalPrior,
)
from iwae_zoo.networks.stacked import Conditional, StackedEncoder, StackedPrior

__all__ = [
    "BernoulliPrior",
    "CategoricalPrior",
    "Conditional",
    "CouplingFlowPrior",
    "Decoder",
    "DiagonalNormal",
    "DownConvolution",
    "Encoder",
    "IndependentBernoulli",
    "MLPDecoder",
    "MLPEncoder",
    "MixtureOfNormalsPrior",
    "Perceptron",
    "RelaxedBernoulliPrior",
    "RelaxedCategoricalPrior",
    "Stacked",
    "StackedEncoder",
    "StackedPrior",
    "StandardNormal",
    "StandardNormalPrior",
    "UpConvolution",
    "bodies",
]
