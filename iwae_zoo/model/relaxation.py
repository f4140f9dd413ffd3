"""From a model that was trained on a relaxation of discrete latents to the discrete model of the same weights."""

from iwae_zoo import objectives
from iwae_zoo.distributions import posteriors
from iwae_zoo.model.autoencoder import ImportanceWeightedAutoencoder

__all__ = ["discrete"]

_RELAXED = ("relaxed_bernoulli", "relaxed_categorical")
# In a configuration: the keys of posterior heads, and the classes of priors with those of what they relax.
_HEADS = ("head", "latent", "given")
_PRIORS = {"RelaxedBernoulliPrior": "BernoulliPrior", "RelaxedCategoricalPrior": "CategoricalPrior"}


def discrete(model, objective="rws"):
    """The discrete model of which a model is the relaxation: the same weights, with `relaxed_bernoulli` heads become
    `bernoulli`, and `relaxed_categorical` ones `categorical`, in posteriors, priors and what networks are given.

    Its log p(x) is another one than the relaxed model's, whose decoder also looks at what lies between 0 and 1; how
    much lower it is says how far the relaxation goes.

    Args:
      model: `ImportanceWeightedAutoencoder`, built, of the networks here.
      objective: an `Objective`, or the name of one whose estimator needs no reparameterised particles, at the model's
        m and k.

    Returns:
      `ImportanceWeightedAutoencoder`, not compiled.

    Raises:
      ValueError: if nothing in the model is relaxed, it is not built, a prior relaxes nothing where the posterior does,
        a network reads a relaxed z by itself, or the objective needs reparameterised particles.

    #### Examples
    >>> from iwae_zoo import presets
    >>> relaxed = presets.build("plane", data_shape=(4,), posterior="relaxed_bernoulli,temperature=0.5")
    >>> discrete(relaxed).encoder.head
    Bernoulli(latent_size=2)

    #### References
    Maddison, Mnih, Teh. The Concrete Distribution. ICLR 2017, section 5, which evaluates models so.
    https://arxiv.org/abs/1611.00712
    """
    if not model.built:
        raise ValueError("The model has no variables yet: build it, or train it, first.")
    _check_priors(model)
    _check_readers(model)
    config = model.get_config()
    swapped = _swapped(config)
    if swapped == config:
        raise ValueError("No latent of the model is relaxed: there is no discrete model to go back to.")
    objective = objectives.get(objective, m=model.objective.m, k=model.objective.k)
    again = ImportanceWeightedAutoencoder.from_config({**swapped, "objective": objective.get_config()})
    again.build((None, *model.data_shape))
    again.set_weights(model.get_weights())
    return again


def _check_priors(model):
    """Raises ValueError if the prior of a relaxed layer is not of its kind."""
    supports = (getattr(network, "supports", ()) for network in (model.encoder, model.prior))
    for (posterior, *_), (prior, *_) in zip(*supports, strict=False):  # Of one's own networks they may be unknown.
        if posterior in _RELAXED and prior not in (None, posterior):
            raise ValueError(
                f"The prior {prior!r} of what {posterior!r} draws relaxes nothing: no discrete prior has its weights. "
                "Train a model with the prior left out: it is relaxed then, too."
            )


def _check_readers(model):
    """Raises ValueError if a network is given a relaxed layer's z as it is, and not its head's features of it."""
    first = getattr(model.encoder, "first", model.encoder)
    upwards = getattr(model.encoder, "conditionals", [])
    downwards = [model.decoder, *getattr(model.prior, "conditionals", [])[::-1]]
    heads = [getattr(layer, "head", None) for layer in (first, *upwards)]
    for i, head in enumerate(heads):
        for reader in (*upwards[i : i + 1], *downwards[i : i + 1]):
            given = getattr(reader, "latent", getattr(reader, "given", None))
            if isinstance(head, posteriors.Posterior) and head.discrete != head and given != head:
                raise ValueError(
                    f"{reader.name!r} is given z itself, of which a discrete one is no special case: make it with the "
                    f"head of what it reads, as Decoder(..., latent=head) or Conditional(..., given=head)."
                )


def _swapped(config):
    """A configuration with the heads and priors of what those in it relax."""
    if isinstance(config, (list, tuple)):
        return type(config)(_swapped(part) for part in config)
    if not isinstance(config, dict):
        return config
    swapped = {name: _discrete_head(part) if name in _HEADS else _swapped(part) for name, part in config.items()}
    if config.get("class_name") in _PRIORS and config.get("registered_name"):
        name = _PRIORS[config["class_name"]]
        own = {setting: value for setting, value in swapped["config"].items() if setting != "temperature"}
        swapped |= {"class_name": name, "registered_name": f"iwae_zoo>{name}", "config": own}
    return swapped


def _discrete_head(config):
    if not isinstance(config, dict) or config.get("name") not in _RELAXED:
        return config
    return posteriors.to_config(posteriors.from_config(config).discrete)
