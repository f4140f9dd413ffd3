"""Whether posterior, prior and objective fit together: what draws of z hold, and whether they have derivatives."""

from iwae_zoo import objectives

__all__ = ["check_latent"]


def check_latent(objective, posterior, prior):
    """Checks that posterior, prior and objective fit together, before there are distributions.

    Args:
      objective: `Objective`.
      posterior: `Posterior.supports` of the stochastic layers from x upwards; empty if they are not known, None in
        place of a name and a support that are not.
      prior: the same.

    Raises:
      ValueError: if supports differ, or the objective's estimator needs derivatives that draws do not have.
    """
    for name, _, reparameterized in posterior:
        objectives.check_reparameterized(objective, name, reparameterized)
    if len(posterior) != len(prior):
        return  # Sizes are compared where they are known.
    for layer, (of_posterior, of_prior) in enumerate(zip(posterior, prior, strict=True), 1):
        (name, support, _), (prior_name, prior_support, _) = of_posterior, of_prior
        if None not in (support, prior_support) and support != prior_support:
            of_layer = f" of layer {layer}" if len(posterior) > 1 else ""
            raise ValueError(
                f"Posterior and prior{of_layer} have different supports: {name!r} draws {support}, and {prior_name!r} "
                f"{prior_support}. Leave the prior out for the one that fits."
            )
