"""Which Keras layers networks may be made of, and what they may end in."""

import keras
import tensorflow as tf

__all__ = ["check", "check_densities", "check_shared", "check_unregularized"]

# Layers that are other functions in training.
_OF_TRAINING = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.SpectralNormalization,
)


def check(network, role, method):
    """Checks that a network has its method, and is one function of each row, always the same.

    Args:
      network: what a user passes.
      role: str, such as "encoder".
      method: str, what it must have.

    Raises:
      ValueError: if not, or if a layer computes in float16.
    """
    if not isinstance(network, keras.Layer) or not callable(getattr(network, method, None)):
        raise ValueError(
            f"The {role} must be a keras.Layer with a method {method}(...) that returns a TFP distribution: "
            f"received {network!r}."
        )
    for part in network._flatten_layers():
        if isinstance(part, keras.layers.BatchNormalization):
            raise ValueError(
                f"The {role} holds a batch normalisation, {part.name!r}, with which log p(x) of a row would "
                "depend on the rows beside it. Use keras.layers.LayerNormalization."
            )
        if _does_more_in_training(part):
            raise ValueError(
                f"The {role} holds {part.name!r}, a {type(part).__name__}, which does something in training "
                "only. A network is one function here, in training and in answers: leave it out."
            )
        if _is_random(part):
            raise ValueError(
                f"The {role} holds {part.name!r}, a {type(part).__name__}, which draws at random. A network is one "
                "function here, the same in every call: change the data instead."
            )
        if part.compute_dtype == "float16":
            raise ValueError(
                f"The {role} holds {part.name!r}, which computes in float16: gradients would vanish in it, as there is "
                "no loss to be scaled. Use bfloat16."
            )


def _does_more_in_training(layer):
    """Whether a layer is another function in training, or may be for all that it says."""
    if isinstance(layer, _OF_TRAINING):
        return bool(getattr(layer, "rate", getattr(layer, "stddev", 1.0)))
    return any(isinstance(share, float) and share > 0.0 for share in _dropped(layer))


def _dropped(layer):
    return [getattr(layer, name) for name in ("dropout", "recurrent_dropout") if hasattr(layer, name)]


def _is_random(layer):
    """Whether a layer has random numbers of its own; those of recurrent layers are for dropout alone."""
    return not _dropped(layer) and any(isinstance(kept, keras.random.SeedGenerator) for kept in vars(layer).values())


def check_shared(encoder_variables, decoder_variables):
    """Raises ValueError if a variable would be moved by both optimizers."""
    of_encoder = {id(variable) for variable in encoder_variables}
    shared = [variable.path for variable in decoder_variables if id(variable) in of_encoder]
    if shared:
        raise ValueError(
            "The encoder shares variables with the decoder or the prior, and both optimizers would move them: "
            f"{', '.join(shared)}. Give each network layers of its own."
        )


def check_unregularized(networks):
    """Raises ValueError on terms of a loss that are in no bound, and would be lost silently."""
    parts = [part for network in networks for part in network._flatten_layers()]
    regularized = [network.name for network in networks if network.losses]
    regularized += [part.name for part in parts if part.activity_regularizer is not None]
    if regularized:
        raise ValueError(
            "Regularizers add to a loss, and a bound is all that is trained here: "
            f"{', '.join(dict.fromkeys(regularized))} have some. Leave them out; an optimizer's weight_decay is kept."
        )


def check_densities(*distributions):
    """Raises ValueError on densities that round away what log weights differ in."""
    for distribution in distributions:
        dtype = distribution.dtype
        if dtype.is_integer:  # Its densities are of another.
            dtype = distribution.log_prob(tf.zeros([1, *distribution.event_shape], dtype)).dtype
        if dtype.is_floating and dtype.size < 4:
            raise ValueError(
                f"{distribution.name} has densities of {dtype.name}, in which log weights of many "
                "particles are the same. Cast what its network returns to the layer's variable_dtype."
            )
