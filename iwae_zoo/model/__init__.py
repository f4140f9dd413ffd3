"""How a step is computed: the Keras model, both networks' gradients, and the particles they are made of."""

from iwae_zoo.model.autoencoder import ImportanceWeightedAutoencoder

__all__ = ["ImportanceWeightedAutoencoder"]
