"""Whether posterior, prior and objective fit together: what draws of z hold, and whether they have derivatives."""

from tensorflow_probability import bijectors as tfb

from iwae_zoo import objectives

__all__ = ["check_latent", "is_everywhere"]

# Names of the bijectors that are known to reach all of R^D from all of it, where they are not made of others.
_ONTO = frozenset(
    (
        "Identity",
        "MaskedAutoregressiveFlow",
        "Permute",
        "RationalQuadraticSpline",
        "RealNVP",
        "Reshape",
        "Scale",
        "ScaleMatvecDiag",
        "ScaleMatvecLU",
        "ScaleMatvecLinearOperator",
        "ScaleMatvecTriL",
        "Shift",
        "SinhArcsinh",
        "Transpose",
    )
)


def is_everywhere(distribution):
    """Whether draws of a continuous distribution may be anywhere in R^D, as far as its type says.

    #### Examples
    >>> from tensorflow_probability import distributions as tfd
    >>> is_everywhere(tfd.Independent(tfd.StudentT(3.0, [0.0], 1.0), 1)), is_everywhere(tfd.Dirichlet([1.0, 1.0]))
    (True, False)
    """
    # By what they have: TFP makes instances of other classes where a part is no `tfp.experimental.AutoCompositeTensor`.
    parts = getattr(distribution, "parts", None) or getattr(distribution, "components", None)
    if parts:  # Stacked layers, a mixture.
        return all(map(is_everywhere, parts))
    inner = getattr(distribution, "distribution", None) or getattr(distribution, "components_distribution", None)
    if inner is not None and not hasattr(distribution, "bijector"):  # Independent, Sample, a mixture of one family.
        return is_everywhere(inner)
    if inner is not None and _is_onto(distribution.bijector) and is_everywhere(inner):
        return True
    try:
        bijector = distribution.experimental_default_event_space_bijector()
    except NotImplementedError:  # Ours, which are.
        return True
    except TypeError:  # TFP 0.25 cannot make those of simplices and spheres under numpy 2.
        return False
    return isinstance(bijector, tfb.Identity)


def _is_onto(bijector):
    inner = [*getattr(bijector, "bijectors", ())]
    inner += [part for part in (getattr(bijector, "bijector", None),) if isinstance(part, tfb.Bijector)]
    if inner:
        return all(map(_is_onto, inner))
    return any(of.__name__.lstrip("_") in _ONTO for of in type(bijector).__mro__)


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
