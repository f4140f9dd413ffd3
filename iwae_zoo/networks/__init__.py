"""Encoders, decoders and priors: Keras layers with one method that returns a TFP distribution.

    class Encoder(keras.Layer):  def posterior(self, x)      # batch [B], event [D], reparameterised
    class Decoder(keras.Layer):  def likelihood(self, z)     # z [..., D] -> batch [...], event = shape of one x
    class Prior(keras.Layer):    def distribution(self)      # batch [], event [D]

Any Keras layer that keeps one of these methods can take its place in the model.
"""

from iwae_zoo.distributions.bernoulli import IndependentBernoulli
from iwae_zoo.distributions.gaussian import DiagonalNormal, StandardNormal
from iwae_zoo.networks.perceptron import MLPDecoder, MLPEncoder, StandardNormalPrior

__all__ = [
    "DiagonalNormal",
    "IndependentBernoulli",
    "MLPDecoder",
    "MLPEncoder",
    "StandardNormal",
    "StandardNormalPrior",
]
