"""The encoder's and the decoder's optimizer as the one that Keras' callbacks look for."""

import keras
import numpy as np
import tensorflow as tf

from iwae_zoo.model import replicas

__all__ = ["OptimizerPair", "clipped"]

_SIDES = "encoder", "decoder"


class OptimizerPair:
    """Two optimizers with one learning rate and one step count.

    Args:
      encoder: `keras.optimizers.Optimizer`.
      decoder: the same, another instance.
    """

    def __init__(self, encoder, decoder):
        self.encoder = encoder
        self.decoder = decoder
        rates = self._rates()
        self._shares = rates / rates.max() if rates.max() > 0 else np.ones(2)

    @classmethod
    def of(cls, optimizer=None, encoder=None, decoder=None):
        """The pair from what a user passes; names and instances alike.

        Args:
          optimizer: for whichever of the two is not given; if that is both, each gets a copy, which has taken no step.
          encoder: for the encoder.
          decoder: for the decoder.

        Returns:
          `OptimizerPair`. What is made here is named after its side, `encoder_adam`, so that each variable has a path
          of its own.

        Raises:
          ValueError: if one is missing; if one instance is given for both: its state belongs to one list of variables;
            on a `LossScaleOptimizer`, or a `loss_scale_factor`; if an optimizer cannot be copied.
        """
        if optimizer is None and (encoder is None or decoder is None):
            raise ValueError(
                "There is no optimizer: received optimizer=None. Pass one or its name, or both encoder_optimizer and "
                "decoder_optimizer."
            )
        if encoder is None and decoder is None:
            given = keras.optimizers.get(optimizer)
            encoder, decoder = (_copied(given, side) for side in _SIDES)
        encoder = optimizer if encoder is None else encoder
        decoder = optimizer if decoder is None else decoder
        if encoder is decoder and not isinstance(encoder, str):
            raise ValueError(
                "encoder_optimizer and decoder_optimizer must be two instances: received the same one. Pass it as "
                "optimizer alone, and each gets a copy."
            )
        both = [
            _copied(keras.optimizers.get(one), side) if isinstance(one, str) else keras.optimizers.get(one)
            for one, side in zip((encoder, decoder), _SIDES, strict=True)
        ]
        if any(isinstance(optimizer, keras.optimizers.LossScaleOptimizer) for optimizer in both):
            raise ValueError(
                "A LossScaleOptimizer divides gradients by a scale that nothing has multiplied them with: bfloat16 "
                "needs none. Pass its inner optimizer."
            )
        if any(optimizer.loss_scale_factor for optimizer in both):
            raise ValueError("loss_scale_factor divides gradients of a loss that nothing has multiplied: leave it out.")
        return cls(*both)

    def is_of(self, strategy):
        """Whether both were made in the scope of a `tf.distribute.Strategy`."""
        return all(optimizer._distribution_strategy is strategy for optimizer in (self.encoder, self.decoder))

    @property
    def name(self):
        """str, the names of both, for callbacks that log it."""
        return f"{self.encoder.name}+{self.decoder.name}"

    @property
    def learning_rate(self):
        """float, the larger of the two. Setting it sets both, in the ratio that they had.

        Raises:
          TypeError: on setting it where an optimizer has a schedule of its own.
        """
        return float(max(self._rates()))

    @learning_rate.setter
    def learning_rate(self, value):
        for optimizer in (self.encoder, self.decoder):  # Before one of them is set.
            if not isinstance(optimizer._learning_rate, keras.Variable):
                raise TypeError(f"{optimizer.name} has a learning rate of its own, a schedule, that cannot be set.")
        rates = self._rates()
        if rates.max() > 0:  # At zero the last known ratio holds.
            self._shares = rates / rates.max()
        for optimizer, share in zip((self.encoder, self.decoder), self._shares, strict=True):
            optimizer.learning_rate = float(value) * float(share)

    @property
    def iterations(self):
        """Scalar tensor, the number of updates: one of the two may have nothing to train, and not count."""
        return keras.ops.maximum(self.encoder.iterations, self.decoder.iterations)

    @property
    def batches(self):
        """Scalar tensor, the number of steps, of which several may make an update."""
        # `iterations` is whole updates, where an optimizer accumulates gradients.
        return keras.ops.maximum(self.encoder._iterations, self.decoder._iterations)

    @property
    def averages(self):
        """Whether one of the two keeps averages of the weights."""
        return any(optimizer.use_ema for optimizer in (self.encoder, self.decoder))

    @property
    def accumulates(self):
        """Whether one of the two adds up the gradients of several steps."""
        return any(optimizer.gradient_accumulation_steps for optimizer in (self.encoder, self.decoder))

    @property
    def overwrites(self):
        """Whether one of the two puts its averages in place while it trains."""
        return any(
            optimizer.use_ema and optimizer.ema_overwrite_frequency for optimizer in (self.encoder, self.decoder)
        )

    def finalize(self):
        """Sets variables to their averages, where an optimizer keeps some: the end of training."""
        for optimizer in (self.encoder, self.decoder):
            if int(keras.ops.convert_to_numpy(optimizer._iterations)):  # Before the first step averages are zeros.
                optimizer.finalize_variable_values(optimizer._trainable_variables)

    @property
    def variables(self):
        """The state of both."""
        return self.encoder.variables + self.decoder.variables

    @property
    def built(self):
        """Whether both have their variables."""
        return self.encoder.built and self.decoder.built

    def _rates(self):
        return np.array([float(tf.convert_to_tensor(o.learning_rate)) for o in (self.encoder, self.decoder)])


def clipped(optimizer, gradients):
    """Gradients as an optimizer takes them of this replica, so that it clips their sum over the replicas.

    Keras clips before it adds up. What is clipped here is below the limit as a share, where its own does nothing.

    Args:
      optimizer: `keras.optimizers.Optimizer`.
      gradients: list of tensors, this replica's part.
    """
    clips = (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)
    context = tf.distribute.get_replica_context()
    count = 1 if context is None else context.num_replicas_in_sync
    if count == 1 or not gradients or all(limit is None for limit in clips):
        return gradients
    return [gradient / count for gradient in optimizer._clip_gradients(replicas.total(gradients))]


def _copied(optimizer, side):
    """Another one with the same settings, which has taken no step, named after its side.

    Raises:
      ValueError: if its class does not say how it is made.
    """
    rate = optimizer._learning_rate
    is_shared = not isinstance(rate, keras.Variable)  # A schedule or a function has no state, and need not be copied.
    try:
        if is_shared:
            object.__setattr__(optimizer, "_learning_rate", None)
        config = optimizer.get_config()
        if "name" in config:
            config["name"] = f"{side}_{optimizer.name}"
        copy = type(optimizer).from_config(config)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"A {type(optimizer).__name__} cannot be copied ({error}): pass two, as encoder_optimizer and "
            "decoder_optimizer."
        ) from error
    finally:
        object.__setattr__(optimizer, "_learning_rate", rate)
    if is_shared:
        copy.learning_rate = rate
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):  # In no configuration.
        if hasattr(optimizer, name):
            object.__setattr__(copy, name, getattr(optimizer, name))
    return copy
