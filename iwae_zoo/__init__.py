"""A model zoo of importance-weighted autoencoders for Keras 3 and TensorFlow."""

from iwae_zoo import bounds, estimators, networks, objectives, particles
from iwae_zoo.model import Gradients, ImportanceWeightedAutoencoder
from iwae_zoo.objectives import Objective

__version__ = "0.1.0"

__all__ = [
    "Gradients",
    "ImportanceWeightedAutoencoder",
    "Objective",
    "bounds",
    "estimators",
    "networks",
    "objectives",
    "particles",
]
