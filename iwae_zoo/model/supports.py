"""Whether posterior, prior and objective fit together: what draws of z hold, and whether they have derivatives."""

from iwae_zoo import objectives
from iwae_zoo.distributions.posteriors import REAL

__all__ = ["check_latent"]


def check_latent(objective, posterior, prior):
    """Checks that posterior, prior and objective fit together, before there are distributions.

    Args:
      objective: `Objective`.
      posterior: tuple of the name and the support of each stochastic layer, from x upwards; empty if it is not known.
      prior: the same.

    Raises:
      ValueError: if supports differ, or the objective's estimator needs derivatives that draws do not have.
    """
    for name, support in posterior:
        objectives.check_reparameterized(objective, name, support in (REAL, None))
    if len(posterior) != len(prior):
        return  # Sizes are compared where they are known.
    for layer, ((name, support), (prior_name, prior_support)) in enumerate(zip(posterior, prior, strict=True), 1):
        if None not in (support, prior_support) and support != prior_support:
            of_layer = f" of layer {layer}" if len(posterior) > 1 else ""
            raise ValueError(
                f"Posterior and prior{of_layer} have different supports: {name!r} draws {support}, and {prior_name!r} "
                f"{prior_support}. Leave the prior out for the one that fits."
            )
