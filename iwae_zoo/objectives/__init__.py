"""What is maximised: bounds, gradient estimators, and objectives that join them."""

from iwae_zoo.objectives import bounds, estimators
from iwae_zoo.objectives.objective import Objective, ParticleWeights, check_reparameterized, get, names

__all__ = ["Objective", "ParticleWeights", "bounds", "check_reparameterized", "estimators", "get", "names"]
