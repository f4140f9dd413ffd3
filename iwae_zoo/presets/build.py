"""From a preset's names to a model."""

import numpy as np

from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.model import ImportanceWeightedAutoencoder
from iwae_zoo.networks import Decoder, Encoder, bodies, prior
from iwae_zoo.presets import table

__all__ = ["build", "choose_likelihood", "dtype_policy"]


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


def choose_likelihood(name, likelihood=None, kind=None):
    """The likelihood of a model.

    Args:
      name: of the preset.
      likelihood: a `likelihoods.Likelihood` or the name of one, instead of the preset's.
      kind: name of the kind of x, as `data.kinds` has it; None if it is not known.

    Returns:
      `likelihoods.Likelihood`, not fitted; by default that of the kind.

    Raises:
      ValueError: on an unknown name, or a likelihood that is not for this kind of data.
    """
    head = likelihoods.get(likelihood or table.get(name).likelihood or likelihoods.default(kind or "binary"))
    return head if kind is None else likelihoods.checked(head, kind)


def build(
    name, *, data=None, data_shape=None, objective="iwae", seed=0, data_mean=None, mixed_precision=None, likelihood=None
):
    """Builds an untrained model.

    Args:
      name: one of `names()`.
      data: a `data.Dataset`, for the shape and the kind of x, and for where the output biases start; instead of
        `data_shape` and `data_mean`.
      data_shape: shape of one x.
      objective: an `Objective`, or the name of one.
      seed: int, of the initial weights and of training.
      data_mean: optional array of `data_shape`, the training mean of binary data, for the output bias.
      mixed_precision: as in `dtype_policy`.
      likelihood: a `likelihoods.Likelihood` or the name of one, instead of the preset's.

    Returns:
      `ImportanceWeightedAutoencoder`, built.

    Raises:
      ValueError: on an unknown name or type, on both or neither of `data` and `data_shape`, or a likelihood that does
        not fit the kind of the data.

    #### Examples
    >>> build("plane", data_shape=(8, 8, 1), objective="miwae").latent_size
    2
    """
    preset = table.get(name)
    if (data is None) == (data_shape is None) or (data is not None and data_mean is not None):
        raise ValueError("Pass either data, a Dataset, or data_shape (and data_mean, if it is known).")
    head = choose_likelihood(name, likelihood, None if data is None else data.kind_of_x)
    if data is not None:
        data_shape, head = data.data_shape, head.fitted(data.training_values)
    elif data_mean is not None:
        head = head.fitted(np.asarray(data_mean)[np.newaxis])
    posterior = posteriors.get(preset.posterior, preset.latent_size)
    sizes = {
        "hidden_sizes": preset.hidden_sizes,
        "activation": preset.activation,
        "dtype": dtype_policy(mixed_precision),
    }
    body = bodies.get(preset.network)
    # Each layer has a seed of its own: seeds 1000 s, 1000 s + 1, ... for a model of seed s.
    encoder_body = body.encoder(posterior, data_shape, seed=1000 * seed, **sizes)
    decoder_body = body.decoder(head, data_shape, seed=1000 * seed + 500, **sizes)
    model = ImportanceWeightedAutoencoder(
        Encoder(encoder_body, posterior, inputs=head, dtype=sizes["dtype"]),
        Decoder(decoder_body, head, data_shape, dtype=sizes["dtype"]),
        prior.get(preset.prior, preset.latent_size),
        objective=objective,
        seed=seed,
    )
    model.build((None, *data_shape))
    return model
