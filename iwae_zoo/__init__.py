"""A model zoo of importance-weighted autoencoders for Keras 3 and TensorFlow."""

from iwae_zoo import (
    annealing,
    bounds,
    data,
    diagnostics,
    estimators,
    evaluation,
    figures,
    gradients,
    likelihood,
    networks,
    noise,
    objectives,
    particles,
    presets,
    psis,
    resampling,
    saved_model,
    strategies,
    testing,
    training,
)
from iwae_zoo.gradients import Gradients
from iwae_zoo.model import ImportanceWeightedAutoencoder
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
    "gradients",
    "likelihood",
    "networks",
    "noise",
    "objectives",
    "particles",
    "presets",
    "psis",
    "resampling",
    "saved_model",
    "strategies",
    "testing",
    "training",
]
