"""From a preset's names to a model."""

import dataclasses

import numpy as np

from iwae_zoo import objectives
from iwae_zoo._checks import checked_seed
from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.model import ImportanceWeightedAutoencoder, supports
from iwae_zoo.networks import Conditional, Decoder, Encoder, Perceptron, StackedEncoder, StackedPrior, bodies
from iwae_zoo.networks import prior as priors
from iwae_zoo.presets import table

__all__ = ["build", "check_latent", "check_shape", "choose_likelihood", "dtype_policy"]


def dtype_policy(mixed_precision):
    """Name of the Keras dtype policy of networks that compute in a type and keep float32 weights.

    Args:
      mixed_precision: "bfloat16", or None for float32 throughout.

    Raises:
      ValueError: on anything else. float16 would need its losses scaled.
    """
    if mixed_precision not in (None, "bfloat16"):
        raise ValueError(f"mixed_precision must be 'bfloat16' or left out: received {mixed_precision!r}.")
    return mixed_precision and f"mixed_{mixed_precision}"


def choose_likelihood(name, likelihood=None, data=None):
    """The likelihood of a model.

    Args:
      name: of the preset.
      likelihood: a `likelihoods.Likelihood` or the name of one, instead of the preset's.
      data: `data.Dataset`, for the kind of x and a table's columns; None if it is not known: then x is of the kind
        that the preset was made for.

    Returns:
      `likelihoods.Likelihood`, not fitted; by default that of the kind.

    Raises:
      ValueError: on an unknown name, or a likelihood that is not for this kind of data.
    """
    preset = table.get(name)
    kind = preset.kind if data is None else data.kind_of_x
    head = likelihoods.get(likelihood or preset.likelihood or likelihoods.default(kind))
    if data is None:
        return head
    likelihoods.checked(head, kind, data.kind)
    return dataclasses.replace(head, columns=data.columns) if isinstance(head, likelihoods.Columns) else head


def latent_heads(preset):
    """The posterior heads of a `Preset`'s stochastic layers, from x upwards.

    Raises:
      ValueError: on an unknown name, a setting that a head does not have or take, or sizes that it is not for.
    """
    names, sizes = preset.posteriors, [size for size, _ in preset.layers]
    return [posteriors.get(name, size) for name, size in zip(names, sizes, strict=True)]


def check_latent(name, objective, **fields):
    """Raises ValueError if posteriors, prior and `Objective` of a preset, with `fields` in place of its own, do not
    fit.
    """
    preset = table.get(name, **fields)
    heads = latent_heads(preset)
    prior = priors.get(preset.prior or heads[-1].prior, heads[-1].latent_size)
    below = sum((head.downwards.supports for head in heads[:-1]), ())
    supports.check_latent(objective, sum((head.supports for head in heads), ()), below + prior.supports)


def check_shape(name, data_shape, **fields):
    """Raises ValueError if the networks of a preset, with `fields` in place of its own, cannot take x of the shape."""
    preset = table.get(name, **fields)
    bodies.get(preset.network).check(data_shape, preset.layers[0][1])


def build(
    name,
    *,
    data=None,
    data_shape=None,
    objective=None,
    seed=0,
    data_mean=None,
    mixed_precision=None,
    likelihood=None,
    network=None,
    posterior=None,
    prior=None,
    latent_size=None,
    hidden_sizes=None,
    activation=None,
):
    """Builds an untrained model.

    Args:
      name: one of `names()`.
      data: a `data.Dataset`, for the shape and the kind of x, and for where the output biases start; instead of
        `data_shape` and `data_mean`.
      data_shape: shape of one x.
      objective: an `Objective`, or the name of one, with the preset's `m` and `k`; None for the preset's.
      seed: int, of the initial weights and of training.
      data_mean: optional array of `data_shape`, the training mean of binary data, for the output bias.
      mixed_precision: as in `dtype_policy`.
      likelihood: a `likelihoods.Likelihood` or the name of one, instead of the preset's.
      network: name of a body, with settings where it has some, as `bodies.get`, instead of the preset's.
      posterior: name of a posterior of all stochastic layers, or of each with + between them, instead of the preset's.
      prior: name of a prior, of the topmost stochastic layer, instead of the preset's.
      latent_size: int, or a tuple of the sizes of stacked stochastic layers from x upwards, instead of the preset's.
      hidden_sizes: tuple of int, or one for each stochastic layer, instead of the preset's.
      activation: Keras activation of the hidden layers, instead of the preset's.

    Returns:
      `ImportanceWeightedAutoencoder`, built.

    Raises:
      ValueError: on an unknown name or type, on both or neither of `data` and `data_shape`, a likelihood that does not
        fit the kind of the data, or as `ImportanceWeightedAutoencoder` on what does not fit a discrete z.

    #### Examples
    >>> build("plane", data_shape=(8, 8, 1), objective="miwae").latent_size
    2
    >>> build("plane", data_shape=(8, 8, 1), latent_size=(4, 2)).latent_size  # Of both layers together.
    6
    """
    preset = table.get(
        name,
        network=network,
        posterior=posterior,
        prior=prior,
        latent_size=latent_size,
        hidden_sizes=hidden_sizes,
        activation=activation,
    )
    seed = checked_seed(seed)
    if (data is None) == (data_shape is None) or (data is not None and data_mean is not None):
        raise ValueError("Pass either data, a Dataset, or data_shape (and data_mean, if it is known).")
    if data is not None and not hasattr(data, "kind_of_x"):
        raise ValueError(
            f"data must be a data.Dataset, which knows the kind of its three splits: received {type(data).__name__}. "
            "Pass data.Dataset(name, train, validation, test, kind), or data_shape=x.shape[1:]."
        )
    head = choose_likelihood(name, likelihood, data)
    if data is not None:
        data_shape = data.data_shape
        if data.has_missing:  # Perhaps not in training.
            head = dataclasses.replace(head, missing=True)
            data.warn_of_unobserved()
        for part in (data.validation, data.test):
            head = head.covering(part)
        head = head.fitted(data.training_values)
    elif not isinstance(data_shape, list | tuple):
        raise ValueError(f"data_shape must be a tuple, the shape of one x: received {data_shape!r}.")
    elif data_mean is not None:
        head = head.fitted(np.asarray(data_mean)[np.newaxis])
    # Each Keras layer has a seed of its own: seeds 1000 s, 1000 s + 1, ... for a model of seed s.
    model = ImportanceWeightedAutoencoder(
        *_networks(preset, head, data_shape, 1000 * seed, dtype_policy(mixed_precision)),
        objective=objectives.get(objective or preset.objective, m=preset.m, k=preset.k),
        seed=seed,
    )
    model.build((None, *data_shape))
    return model


def _networks(preset, likelihood, data_shape, seed, dtype):
    """Encoder, decoder and prior of a preset."""
    heads = latent_heads(preset)
    (_, hidden_sizes), *upper = preset.layers
    common = {"activation": preset.activation, "dtype": dtype}
    sizes = {"hidden_sizes": hidden_sizes, **common}
    body = bodies.get(preset.network)
    body.check(data_shape, hidden_sizes)
    encoder_body = body.encoder(heads[0], data_shape, seed=seed, **sizes)
    encoder = Encoder(encoder_body, heads[0], inputs=likelihood, seed=seed + 50, dtype=dtype)
    decoder_body = body.decoder(likelihood, data_shape, seed=seed + 500, **sizes)
    reads = heads[0].latent_size if upper else None
    decoder = Decoder(decoder_body, likelihood, data_shape, reads, heads[0], dtype=dtype)
    top = priors.get(preset.prior or heads[-1].prior, heads[-1].latent_size, seed=seed + 950)
    if not upper:
        return encoder, decoder, top

    def conditional(head, given, hidden_sizes, seed):
        body = Perceptron(hidden_sizes, head.num_parameters, seed=seed, **common)
        return Conditional(body, head, seed=seed + 50, given=given, dtype=dtype)

    # The network between two layers has the hidden sizes of the upper one, on the way up as on the way down.
    upwards, downwards = [], []
    for i, (below, head, (_, hidden)) in enumerate(zip(heads[:-1], heads[1:], upper, strict=True), 1):
        upwards.append(conditional(head, below, hidden, seed + 100 * i))
        downwards.append(conditional(below.downwards, head, hidden[::-1], seed + 500 + 100 * i))
    return StackedEncoder(encoder, upwards), decoder, StackedPrior(top, downwards[::-1])
