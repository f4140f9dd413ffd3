"""The one Keras model: two tapes, one objective for the encoder and one for the decoder."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from iwae_zoo import bounds, objectives, particles

__all__ = ["Gradients", "ImportanceWeightedAutoencoder"]

# Least weight with which a particle goes through the decoder's backward pass; see `compute_gradients`.
_TINY = 1e-12
# How the error of a step begins that would have poisoned the weights.
NOT_FINITE = "The log weights of a training batch are not finite"
# Sub-streams of the model's seed.
_TRAINING, _EVALUATION = 0, 1


class Gradients(NamedTuple):
    """Gradients in descent direction, as optimizers take them, averaged over the batch.

    Attributes:
      encoder: list of tensors, in the order of `model.encoder_variables`.
      decoder: list of tensors, in the order of `model.decoder_variables` (the decoder's, then the prior's).
      log_weights: float tensor [M, K, B], nats.
    """

    encoder: list
    decoder: list
    log_weights: tf.Tensor


@keras.saving.register_keras_serializable(package="iwae_zoo")
class ImportanceWeightedAutoencoder(keras.Model):
    """Latent variable model p(x, z) with an encoder q(z | x), trained on any `Objective`.

    Args:
      encoder: Keras layer with `posterior(x)`, a `tfd.Distribution` of batch shape [B] and event shape [D].
      decoder: Keras layer with `likelihood(z)`, for z [..., D] a `tfd.Distribution` of batch shape [...]. Where it
        also has `marginal_log_prob(x)` [B], the exact log p(x), the model tracks -KL(Q || P) as `negative_kl`.
      prior: Keras layer with `distribution()`, a `tfd.Distribution` of batch shape [] and event shape [D]. Its
        variables train with the decoder.
      objective: an `Objective`, or the name of one.
      seed: int. With the same seed, data and starting weights, training gives the same weights.

    Raises:
      ValueError: if a network lacks its method, or the objective is unknown.

    Calling the model on x [B, ...] reconstructs it: the mean of p(x | z) at the mean of q(z | x).
    """

    def __init__(self, encoder, decoder, prior, *, objective="iwae", seed=0, **kwargs):
        super().__init__(**kwargs)
        for layer, role, method in (
            (encoder, "encoder", "posterior"),
            (decoder, "decoder", "likelihood"),
            (prior, "prior", "distribution"),
        ):
            if not isinstance(layer, keras.Layer) or not callable(getattr(layer, method, None)):
                raise ValueError(
                    f"The {role} must be a keras.Layer with a method {method}(...) that returns a TFP distribution: "
                    f"received {layer!r}."
                )
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        self.objective = objectives.get(objective)
        self.seed = seed
        self.encoder_optimizer: Any = None
        self.decoder_optimizer: Any = None
        names = ["decoder_bound", "encoder_bound", "elbo", "importance_ess"]
        if hasattr(decoder, "marginal_log_prob"):
            names.append("negative_kl")
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self._evaluated_batches = keras.metrics.Sum(name="evaluated_batches", dtype="int32")

    @property
    def encoder_variables(self):
        """Variables that follow the encoder bound."""
        return self.encoder.trainable_variables

    @property
    def decoder_variables(self):
        """Variables that follow the decoder bound: the decoder's, then the prior's."""
        return self.decoder.trainable_variables + self.prior.trainable_variables

    @property
    def latent_size(self):
        """int, D."""
        return self.prior.distribution().event_shape[-1]

    # Building, compiling, saving.

    def build(self, input_shape):
        """Creates all variables, and those of the optimizers, for x of shape `input_shape` [B, ...]."""
        if self.built:
            return
        with tf.init_scope():  # Keras may ask for it while it traces the first step.
            self._build(tuple(input_shape[1:]))

    def _build(self, data_shape):
        posterior = self.encoder.posterior(tf.zeros([1, *data_shape]))
        latent_shape = self.prior.distribution().event_shape
        if not posterior.event_shape.is_compatible_with(latent_shape):
            raise ValueError(
                f"Encoder and prior disagree about the latent: the posterior's event shape is {posterior.event_shape}, "
                f"the prior's is {latent_shape}."
            )
        likelihood = self.decoder.likelihood(tf.zeros([1, *latent_shape], posterior.dtype))
        if not likelihood.event_shape.is_compatible_with(data_shape):
            raise ValueError(
                f"Data and decoder disagree about the shape of x: received x of shape {data_shape}, and the "
                f"likelihood's event shape is {likelihood.event_shape}."
            )
        for layer in (self.encoder, self.decoder, self.prior):
            layer.built = True
        self.data_shape = data_shape
        self.built = True
        self._build_optimizers()

    def _built_for(self, x):
        x = tf.convert_to_tensor(x)
        self.build(x.shape)
        return x

    def compile(self, encoder_optimizer="adam", decoder_optimizer="adam", **kwargs):
        """Sets the two optimizers; everything else is Keras' own `compile`.

        `model.optimizer` stays None: there is no single optimizer whose learning rate a callback could set. Give each
        optimizer a `keras.optimizers.schedules` schedule instead.

        Args:
          encoder_optimizer: a `keras.optimizers.Optimizer` or the name of one.
          decoder_optimizer: the same, another instance.
          **kwargs: of `keras.Model.compile`, such as `jit_compile`, `run_eagerly`, `steps_per_execution`.

        Raises:
          ValueError: if one optimizer instance is given for both: its state belongs to one list of variables.
        """
        if encoder_optimizer is decoder_optimizer and not isinstance(encoder_optimizer, str):
            raise ValueError("encoder_optimizer and decoder_optimizer must be two instances: received the same one.")
        super().compile(optimizer=None, **kwargs)
        self.encoder_optimizer = keras.optimizers.get(encoder_optimizer)
        self.decoder_optimizer = keras.optimizers.get(decoder_optimizer)
        self._compile_arguments = kwargs
        self._build_optimizers()

    def _build_optimizers(self):
        if self.built and self.encoder_optimizer is not None:
            self.encoder_optimizer.build(self.encoder_variables)
            self.decoder_optimizer.build(self.decoder_variables)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "prior": serialize(self.prior),
            "objective": self.objective.get_config(),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for role in ("encoder", "decoder", "prior"):
            config[role] = keras.saving.deserialize_keras_object(config[role], custom_objects=custom_objects)
        config["objective"] = objectives.Objective.from_config(config["objective"])
        return cls(**config)

    def get_build_config(self):
        return {"input_shape": [None, *self.data_shape]} if self.built else None

    def build_from_config(self, config):
        self.build(config["input_shape"])

    def get_compile_config(self):
        return {
            "encoder_optimizer": keras.saving.serialize_keras_object(self.encoder_optimizer),
            "decoder_optimizer": keras.saving.serialize_keras_object(self.decoder_optimizer),
            **self._compile_arguments,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    # Computing.

    def call(self, x):
        return self.decoder.likelihood(self.encoder.posterior(x).mean()).mean()

    def log_weights(self, x, m, k, seed):
        """Log importance weights of fresh particles, without gradients.

        Args:
          x: tensor [B, ...].
          m: int, number of groups.
          k: int, number of particles in a group.
          seed: stateless seed, two integers.

        Returns:
          float tensor [M, K, B], nats.
        """
        x = self._built_for(x)
        return particles.log_weights(self.encoder, self.decoder, self.prior, x, m, k, seed)

    def compute_gradients(self, x, seed):
        """Gradients of both objectives on one batch, at the price of one backward pass.

        Each particle's back-propagated signal is linear in its own scalar weight. So the decoder is back-propagated
        once, with the decoder objective's weights `v`, and the encoder's signal is read off at `z`: what arrives there
        for particle i is `v_i d log p(x, z_i) / d z_i`, which divided by `v_i` and multiplied by the path weight is the
        encoder objective's. A `v_i` below 1e-12 is raised to it, so that the division is possible; the decoder's
        gradient changes by at most 1e-12 of that particle's.

        Args:
          x: tensor [B, ...].
          seed: stateless seed, two integers.

        Returns:
          `Gradients`.

        Raises:
          ValueError: if a network's distribution has the wrong shape, or cannot be reparameterised where the objective
            needs it.
        """
        x = self._built_for(x)
        objective = self.objective
        estimator = objective.estimator
        with tf.GradientTape() as encoder_tape:
            posterior = self.encoder.posterior(x)
            z = particles.draw(posterior, objective.m, objective.k, seed, estimator.uses_path)  # [M, K, B, D]
            z_fixed = tf.stop_gradient(z)
            with tf.GradientTape(watch_accessed_variables=False) as density_tape:
                density_tape.watch(z_fixed)
                log_q = posterior.log_prob(z_fixed)  # [M, K, B]
        with tf.GradientTape() as decoder_tape:
            if estimator.uses_path:
                decoder_tape.watch(z_fixed)
            log_joint = particles.log_joint(self.decoder, self.prior, x, z_fixed)  # [M, K, B]

        log_weights = log_joint - tf.stop_gradient(log_q)
        weights = objective.particle_weights(log_weights)
        # Optimizers add up the gradients of replicas: each replica's is a share of the global batch's mean.
        global_batch = tf.shape(x)[0] * tf.distribute.get_strategy().num_replicas_in_sync
        scale = -1.0 / tf.cast(global_batch, log_weights.dtype)
        v = tf.maximum(weights.decoder, _TINY)

        decoder_variables = self.decoder_variables
        sources = [*decoder_variables, *([z_fixed] if estimator.uses_path else [])]
        decoder_gradients = decoder_tape.gradient(
            log_joint, _values(sources), output_gradients=scale * v, unconnected_gradients="zero"
        )
        targets, signals = [], []
        if estimator.uses_path:
            log_joint_by_z = decoder_gradients.pop() / v[..., tf.newaxis]  # scale d log p(x, z_i) / d z_i
            log_q_by_z = scale * density_tape.gradient(log_q, z_fixed)
            targets.append(z)
            signals.append(weights.path[..., tf.newaxis] * (log_joint_by_z - log_q_by_z))
        if estimator.uses_score:
            targets.append(log_q)
            signals.append(scale * weights.score)
        encoder_gradients = encoder_tape.gradient(
            targets, _values(self.encoder_variables), output_gradients=signals, unconnected_gradients="zero"
        )
        return Gradients(encoder_gradients, decoder_gradients, log_weights)

    def train_step(self, data):
        x = self._built_for(keras.utils.unpack_x_y_sample_weight(data)[0])
        seed = self._seed(_TRAINING, self.encoder_optimizer.iterations)
        gradients = self.compute_gradients(x, seed)
        with tf.control_dependencies([_assert_finite(gradients.log_weights)]):
            encoder_gradients = [tf.identity(g) for g in gradients.encoder]
            decoder_gradients = [tf.identity(g) for g in gradients.decoder]
        logs = self._track(x, gradients.log_weights)
        self.encoder_optimizer.apply(encoder_gradients, self.encoder_variables)
        self.decoder_optimizer.apply(decoder_gradients, self.decoder_variables)
        return logs

    def test_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        # Keras resets metrics before each evaluation, so every evaluation draws the same particles.
        seed = self._seed(_EVALUATION, self._evaluated_batches.result())
        self._evaluated_batches.update_state(1)
        return self._track(x, self.log_weights(x, self.objective.m, self.objective.k, seed))

    @property
    def metrics(self):
        return [*self._trackers.values()]

    def reset_metrics(self):
        super().reset_metrics()
        self._evaluated_batches.reset_state()

    def _seed(self, stream, step):
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context is not None else 0
        return particles.derive_seed(self.seed, stream, step, replica)

    def _track(self, x, log_weights):
        values = {
            "decoder_bound": self.objective.decoder_bound.value(log_weights),
            "encoder_bound": self.objective.encoder_bound.value(log_weights),
            "elbo": bounds.Elbo().value(log_weights),
            "importance_ess": bounds.importance_ess(log_weights),
        }
        if "negative_kl" in self._trackers:
            values["negative_kl"] = values["decoder_bound"] - self.decoder.marginal_log_prob(x)
        for name, tracker in self._trackers.items():
            tracker.update_state(values[name])
        return {name: tracker.result() for name, tracker in self._trackers.items()}


def _values(sources):
    """The TensorFlow variables behind Keras variables, which is what a tape watches."""
    return [source.value if isinstance(source, keras.Variable) else source for source in sources]


def _assert_finite(log_weights):
    """Stops a step before it could poison the weights."""
    return tf.debugging.assert_all_finite(
        log_weights,
        f"{NOT_FINITE}. Either x is outside the support of the likelihood (a "
        "Bernoulli takes 0 and 1 only: binarise, or use iwae_zoo.data) or holds NaN, or training diverged: lower the "
        "learning rate",
    )
