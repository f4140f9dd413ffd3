"""Variables for the weights that a head or a flow shares among rows."""

import keras

__all__ = ["add_weights"]


def add_weights(layer, weights, seed):
    """Makes a variable of a layer for each weight.

    Args:
      layer: Keras layer.
      weights: sequence of `flow.Weight`.
      seed: int, of the initial values: weight i has the seed `seed` + i.

    Returns:
      List of Keras variables.
    """
    return [
        layer.add_weight(
            shape=weight.shape,
            initializer=keras.initializers.GlorotUniform(seed=seed + i) if weight.random else "zeros",
            name=f"weight_{i}",
        )
        for i, weight in enumerate(weights)
    ]
