"""A model zoo of importance-weighted autoencoders for Keras 3 and TensorFlow."""

from iwae_zoo import (
    annealing,
    bounds,
    data,
    diagnostics,
    estimators,
    evaluation,
    figures,
    likelihood,
    networks,
    objectives,
    particles,
    presets,
    psis,
    resampling,
    saved_model,
    testing,
    training,
)
from iwae_zoo.model import Gradients, ImportanceWeightedAutoencoder
from iwae_zoo.objectives import Objective

__version__ = "0.1.0"

__all__ = [
    "Gradients",
    "ImportanceWeightedAutoencoder",
    "Objective",
    "annealing",
    "bounds",
    "data",
    "diagnostics",
    "estimators",
    "evaluation",
    "figures",
    "likelihood",
    "networks",
    "objectives",
    "particles",
    "presets",
    "psis",
    "resampling",
    "saved_model",
    "testing",
    "training",
]
