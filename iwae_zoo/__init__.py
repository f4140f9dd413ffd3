"""A model zoo of importance-weighted autoencoders for Keras 3 and TensorFlow.

Where to look, by question:

    objectives/       what is maximised: bounds, gradient estimators, named objectives
    distributions/    what networks end in: likelihoods, posteriors
    networks/         functions with weights: bodies, encoder, decoder, prior
    model/            how a step is computed: the Keras model, its gradients, particles
    estimation/       what a trained model is asked: log p(x), draws, annealing, resampling, imputation, diagnostics
    data/             where x comes from
    presets/          what comes ready made
    training/         a run in a work directory, devices, schedules
    saved_model/      what is served
    sklearn.py        tables, as scikit-learn's estimators: log p(x), imputation
    figures/          arrays to pictures
    testing/          models with closed forms
    programs/         the command line
"""

import sys

from iwae_zoo import (
    data,
    distributions,
    figures,
    networks,
    objectives,
    presets,
    saved_model,
    sklearn,
    testing,
    training,
)
from iwae_zoo._version import __version__
from iwae_zoo.distributions import noise
from iwae_zoo.estimation import (
    annealing,
    diagnostics,
    evaluation,
    imputation,
    laplace,
    likelihood,
    paths,
    psis,
    resampling,
    sampling,
    walks,
)
from iwae_zoo.model import ImportanceWeightedAutoencoder, gradients, particles, relaxation
from iwae_zoo.model.gradients import Gradients
from iwae_zoo.objectives import Objective, bounds, estimators
from iwae_zoo.training import strategies

__all__ = [
    "Gradients",
    "ImportanceWeightedAutoencoder",
    "Objective",
    "__version__",
    "annealing",
    "bounds",
    "data",
    "diagnostics",
    "distributions",
    "estimators",
    "evaluation",
    "figures",
    "gradients",
    "imputation",
    "laplace",
    "likelihood",
    "networks",
    "noise",
    "objectives",
    "particles",
    "paths",
    "presets",
    "psis",
    "relaxation",
    "resampling",
    "sampling",
    "saved_model",
    "sklearn",
    "strategies",
    "testing",
    "training",
    "walks",
]

# `import iwae_zoo.likelihood` and `from iwae_zoo.bounds import Elbo` work too, whatever folder a module lies in.
for _name in __all__:
    if _name not in ("Gradients", "ImportanceWeightedAutoencoder", "Objective", "__version__"):
        sys.modules.setdefault(f"{__name__}.{_name}", globals()[_name])
