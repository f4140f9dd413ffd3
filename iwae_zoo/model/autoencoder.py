"""The one Keras model: two tapes, one objective for the encoder and one for the decoder."""

from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo import objectives
from iwae_zoo._checks import checked_seed, integer
from iwae_zoo._deferred import Plan
from iwae_zoo.distributions.moments import mean, point
from iwae_zoo.model import divergence, dreams, examples, gradients, layers, loops, particles, replicas
from iwae_zoo.model.optimizers import OptimizerPair, clipped
from iwae_zoo.model.supports import check_latent
from iwae_zoo.objectives import bounds

__all__ = ["ImportanceWeightedAutoencoder"]

# Sub-streams of the model's seed.
_TRAINING, _EVALUATION = 0, 1


@keras.saving.register_keras_serializable(package="iwae_zoo")
class ImportanceWeightedAutoencoder(loops.CheckedLoops):
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
      ValueError: if a network lacks its method, or holds a batch normalisation, a layer that is random or another in
        training, such as a dropout, or one that computes in float16; the supports of posterior and prior differ, the
        seed is no valid one, the objective is unknown, or its estimator needs derivatives that draws of a discrete z do
        not have. When it is built: if shapes do not fit, a network has a regularizer, or densities are below float32.

    Calling the model on x [B, ...] reconstructs it: the mean of p(x | z) at the mean of q(z | x); where z is discrete,
    at the most probable z.
    """

    def __init__(self, encoder, decoder, prior, *, objective="iwae", seed=0, **kwargs):
        # Networks see x as it is: a policy's short type would round it before it is standardised.
        super().__init__(**{"autocast": False, **kwargs})
        self._check_layers(encoder, decoder, prior)
        if getattr(decoder, "takes_missing", False) and getattr(encoder, "takes_missing", None) is False:
            raise ValueError("The decoder takes missing values and the encoder does not: pass it inputs=decoder.head.")
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        self.objective = objectives.get(objective)
        self._check_objective(self.objective)
        self.seed = checked_seed(seed)
        self.encoder_optimizer: Any = None
        self.decoder_optimizer: Any = None
        self.backward_particles = None
        self.particle_chunk = None
        names = ["loss", "decoder_bound", "encoder_bound", "elbo", "importance_ess", *self.objective.companions]
        if hasattr(decoder, "marginal_log_prob"):
            names.append("negative_kl")
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self._evaluated_batches = keras.metrics.Sum(name="evaluated_batches", dtype="int32")

    @classmethod
    def from_preset(cls, name, objective=None, seed=None):
        """A trained model that comes with the package; `presets.card(name)` says what it is and scores.

        Args:
          name: a preset with weights: one of `presets.trained.names()`.
          objective: as in `presets.load`, for further training.
          seed: the same.

        Returns:
          `ImportanceWeightedAutoencoder`, built, not compiled.

        Raises:
          ValueError: on an unknown name, or weights that are not there or damaged.

        #### Examples
        >>> ImportanceWeightedAutoencoder.from_preset("digits_miwae").data_shape
        (8, 8, 1)
        """
        from iwae_zoo import presets  # They know the model.

        return presets.load(name, objective, seed, cls)

    @property
    def encoder_variables(self):
        """Variables that follow the encoder bound."""
        return self.encoder.trainable_variables

    @property
    def decoder_variables(self):
        """Variables that follow the decoder bound: the decoder's, then the prior's; what both have is there once."""
        both = self.decoder.trainable_variables + self.prior.trainable_variables
        return list({id(variable): variable for variable in both}.values())

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
        networks = (self.encoder, self.decoder, self.prior)
        self._check_layers(*networks)  # By now they have all of theirs.
        layers.check_shared(self.encoder_variables, self.decoder_variables)
        layers.check_unregularized(networks)
        layers.check_densities(posterior, likelihood, self.prior.distribution())
        for layer in networks:
            layer.built = True
        self._draws = posterior.name, posterior.reparameterization_type == tfd.FULLY_REPARAMETERIZED
        self.data_shape = data_shape
        self.built = True
        self._build_optimizers()

    @staticmethod
    def _check_layers(encoder, decoder, prior):
        """Raises ValueError on networks, or layers in them, that cannot be trained here."""
        for layer, role, method in (
            (encoder, "encoder", "posterior"),
            (decoder, "decoder", "likelihood"),
            (prior, "prior", "distribution"),
        ):
            layers.check(layer, role, method)

    def _built_for(self, x):
        x = tf.convert_to_tensor(x)
        if not self.built and self.distribute_strategy.num_replicas_in_sync > 1:
            raise RuntimeError(
                "The model has no variables yet, and under a strategy they cannot be made while it trains. Call "
                "model.build((None, *shape of one x)) in the strategy's scope first."
            )
        if not self.built:
            self.build(tuple(x.shape))
        return x

    def compile(
        self,
        optimizer="adam",
        decoder_optimizer=None,
        *,
        encoder_optimizer=None,
        backward_particles=None,
        particle_chunk=None,
        jit_compile="auto",
        **kwargs,
    ):
        """Sets the optimizers and how gradients are computed; everything else is Keras' own `compile`.

        Afterwards `model.optimizer` stands for both: its `learning_rate` reads and sets the two, in the ratio that they
        have, for callbacks.

        Args:
          optimizer: a `keras.optimizers.Optimizer` or the name of one, for whichever network has none of its own below;
            if that is both, each gets a copy, which has taken no step.
          decoder_optimizer: of the decoder and the prior.
          encoder_optimizer: of the encoder.
          backward_particles: int, back-propagate only through so many of an example's M K particles, resampled in
            proportion to their weights: cheaper, the same in expectation, and noisier. None for all.
          particle_chunk: int, most particles of an example that are decoded at once: bounds memory, at the price of
            decoding each twice; the same gradients. None for all.
          jit_compile: bool, whether XLA compiles the train step, on several devices the gradients alone; "auto" for
            wherever there is a GPU.
          **kwargs: of `keras.Model.compile`, such as `run_eagerly` and `steps_per_execution`.

        Raises:
          ValueError: on a loss or metrics, which a bound has not; if the objective's estimator needs derivatives that
            draws of z do not have; if one optimizer instance is given for both, whose state belongs to one list of
            variables; on a number of particles that is not positive, or not below M K where it has to be; on
            `steps_per_execution` above 1, or optimizers that accumulate gradients or put averages in place while they
            train, with several devices, which Keras cannot do; on a model or an optimizer that was made in another
            strategy's scope, or in none.
        """
        # Keras' property is the current strategy for a model of none.
        if tf.distribute.has_strategy() and self._distribute_strategy is not tf.distribute.get_strategy():
            raise ValueError(
                "The model was made outside of this strategy.scope(): make and compile it in the same one."
            )
        strategy = self.distribute_strategy
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"{name} is for models of y given x; the objective is what is trained here, and its bounds are the "
                    f"metrics: received {name}={kwargs[name]!r}. Leave it out."
                )
        with strategy.scope():  # Optimizers belong to the strategy that they are made in.
            pair = OptimizerPair.of(optimizer, encoder_optimizer, decoder_optimizer)
        if not pair.is_of(strategy):
            raise ValueError(
                "An optimizer was made outside of the strategy.scope() of the model, and would train each replica by "
                "itself: make it inside, or pass one optimizer, which is copied, or a name."
            )
        if pair.accumulates and strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "gradient_accumulation_steps is for one device: Keras' optimizers cannot hold back those of replicas. "
                "Leave it out, and take larger batches: particle_chunk=N bounds their memory."
            )
        if pair.overwrites and strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "ema_overwrite_frequency is for one device: Keras' optimizers cannot do it on replicas. Leave it out: "
                "averages are put in place when training ends."
            )
        steps = kwargs.get("steps_per_execution", 1)
        check_training(self.objective, strategy, backward_particles, particle_chunk, steps)
        self._compile_arguments = {
            "backward_particles": backward_particles,
            "particle_chunk": particle_chunk,
            "jit_compile": jit_compile,
            **kwargs,
        }
        self.backward_particles = backward_particles
        self.particle_chunk = particle_chunk
        # Keras would compile all of a step; dreams are drawn outside of XLA, which cannot exchange between devices.
        super().compile(optimizer=None, jit_compile=False, **kwargs)
        if jit_compile == "auto":  # On a GPU Keras' recurrent layers take operations that XLA does not have.
            able = all(getattr(layer, "supports_jit", True) for layer in self._flatten_layers())
            jit_compile = able and bool(tf.config.get_visible_devices("GPU"))
        jit_compile = jit_compile and not self.run_eagerly
        self._compiles_gradients = jit_compile
        self.optimizer = pair
        self.encoder_optimizer, self.decoder_optimizer = pair.encoder, pair.decoder
        with strategy.scope():
            self._latch = divergence.Latch() if jit_compile and replicas.is_alone(strategy) else None
            self._renew_step()
            self._build_optimizers()

    def _check_objective(self, objective):
        """Raises ValueError if the networks cannot follow it."""
        supports = (getattr(layer, "supports", ()) for layer in (self.encoder, self.prior))
        check_latent(objective, *supports)
        if objective.sleep:
            dreams.check(self.decoder)
        if self.built:
            objectives.check_reparameterized(objective, *self._draws)

    def _renew_step(self):
        """Functions of their own for each objective: what is compiled is traced once."""
        self._gradients_in_step = _compiled(self._gradients) if self._compiles_gradients else self._gradients
        self._learn_in_step = _compiled(self._learn) if self._latch else self._learn

    def decode_at_most(self, particle_chunk):
        """Changes the `particle_chunk` of `compile` between two calls of `fit`; everything else goes on as it is."""
        check_training(self.objective, self.distribute_strategy, self.backward_particles, particle_chunk, 1)
        if particle_chunk != self.particle_chunk:
            self.particle_chunk = self._compile_arguments["particle_chunk"] = particle_chunk
            self.train_function = None  # Traced anew.
            self._renew_step()

    def follow(self, objective):
        """Changes the objective, between two epochs of `fit` too; weights and optimizers go on as they are.

        Args:
          objective: an `Objective`, or the name of one.

        Raises:
          ValueError: on an unknown objective, one that the networks cannot follow, with too few particles for
            `backward_particles`, or with other metrics than the model has.
        """
        objective = objectives.get(objective)
        self._check_objective(objective)
        if objective.companions.keys() != self.objective.companions.keys():
            raise ValueError(
                f"The metrics of a model stay: the objective {objective.name!r} has {[*objective.companions]} beside "
                f"the bounds, and {self.objective.name!r} has {[*self.objective.companions]}. Make a model with "
                "objective=... of the same networks."
            )
        check_training(objective, self.distribute_strategy, self.backward_particles, self.particle_chunk, 1)
        self.objective = objective
        if self.compiled:
            self._renew_step()
            trains = self.train_function is not None
            self.train_function = self.test_function = None  # Traced anew.
            if trains:  # `fit` makes one before its first epoch alone.
                self.make_train_function()

    def _build_optimizers(self):
        if self.built and self.encoder_optimizer is not None:
            # Again: layers that were frozen may be trained by now.
            layers.check_shared(self.encoder_variables, self.decoder_variables)
            layers.check_unregularized((self.encoder, self.decoder, self.prior))
            objectives.check_reparameterized(self.objective, *self._draws)
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
        if not self.built:
            return None
        return {
            "input_shape": [None, *self.data_shape],
            "trainable": [layer.trainable for layer in self._flatten_layers()],
        }

    def build_from_config(self, config):
        self.build(config["input_shape"])
        found, flags = list(self._flatten_layers()), config.get("trainable", [])
        if len(flags) == len(found):
            for layer, flag in zip(found, flags, strict=True):  # A parent's reaches its children, which come after it.
                layer.trainable = flag

    def get_compile_config(self):
        if not self.compiled:
            return {}
        return {
            "encoder_optimizer": keras.saving.serialize_keras_object(self.encoder_optimizer),
            "decoder_optimizer": keras.saving.serialize_keras_object(self.decoder_optimizer),
            **self._compile_arguments,
        }

    def compile_from_config(self, config):
        if self.distribute_strategy.num_replicas_in_sync > 1:  # It may come from one device.
            config = {**config, "steps_per_execution": 1}
        self.compile(**keras.saving.deserialize_keras_object(config))

    def set_state_tree(self, state_tree):
        """Keras' own, which would pass over what it does not find.

        Raises:
          ValueError: on a variable that the model does not have.
        """
        received, own = (dict(keras.tree.flatten_with_path(tree)) for tree in (state_tree, self.get_state_tree()))
        unknown = ["/".join(path[1:]) for path in received if path not in own]
        if unknown:
            raise ValueError(
                f"The state is that of another model: {len(unknown)} of its variables are none of this one's, such as "
                f"{unknown[0]!r}. Names are given anew to each model that a process makes: make this one in a new "
                "process as that one was made, or keep models with model.save."
            )
        super().set_state_tree(state_tree)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Keras' own averages the first batch over the replicas, and so cannot take one that does not divide evenly."""

    # Computing.

    def call(self, x):
        x = tf.cast(x, self.variable_dtype)
        return mean(self.decoder.likelihood(point(self.encoder.posterior(x))))

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
        first_row, _ = replicas.place(x)
        return particles.log_weights(self.encoder, self.decoder, self.prior, x, m, k, seed, first_row)

    def compute_gradients(self, x, seed):
        """Gradients of both objectives on one batch, at the price of one backward pass; `gradients` says how.

        It is for a replica, or for outside of a strategy's scope.

        Args:
          x: tensor [B, ...].
          seed: stateless seed, two integers.

        Returns:
          `gradients.Gradients`: encoder, decoder, log_weights.

        Raises:
          ValueError: if a network's distribution has the wrong shape, or cannot be reparameterised where the objective
            needs it.
        """
        x = self._built_for(x)
        place = replicas.place(x)
        return self._gradients(x, seed, place, self._dreamed(x, seed, place) if self.objective.sleep else None)

    def _dreamed(self, x, seed, place):
        """What the sleep update of a step learns from."""
        first_row, global_batch = place
        return dreams.draw(self, seed, first_row, tf.shape(x)[0], global_batch)

    def _gradients(self, x, seed, place, dreamed):
        first_row, global_batch = place
        return gradients.compute(
            self, x, seed, first_row, global_batch, self.backward_particles, self.particle_chunk, dreamed
        )

    def train_step(self, data):
        x = self._make_x(data) if isinstance(data, Plan) else _x_of(data)
        x = self._built_for(x)
        place = None if self._latch else replicas.place(x)  # Outside of XLA it would be numbers on the host.
        dreamed = None
        if self.objective.sleep:
            dreamed = self._dreamed(x, self._training_seed(), place or replicas.place(x))
        return self._learn_in_step(x, place, dreamed)

    def _learn(self, x, place, dreamed):
        computed = self._gradients_in_step(x, self._training_seed(), place or replicas.place(x), dreamed)
        logs = self._track(x, computed.log_weights)
        total = replicas.total(tf.reduce_sum(computed.log_weights))
        sides = (computed.encoder, computed.decoder)
        if self._latch:
            finite = tf.math.is_finite(total)
            self._update_where(finite if self._goes_on_to_callbacks else self._latch.passes(finite), *sides)
        elif self._goes_on_to_callbacks:
            self._update_if(tf.math.is_finite(total), *sides)
        else:
            self._update(*self._checked(total, sides))
        return logs

    def _update(self, encoder_gradients, decoder_gradients):
        self.encoder_optimizer.apply(clipped(self.encoder_optimizer, encoder_gradients), self.encoder_variables)
        self.decoder_optimizer.apply(clipped(self.decoder_optimizer, decoder_gradients), self.decoder_variables)

    def _update_where(self, finite, *sides):
        """For XLA: one pass over a variable does it all, and on a GPU the host would wait for `tf.cond`."""
        variables = [*self.optimizer.variables, *self.encoder_variables, *self.decoder_variables]
        before = [tf.convert_to_tensor(variable) for variable in variables]
        self._update(*sides)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(tf.where(finite, tf.convert_to_tensor(variable), value))

    def _update_if(self, finite, *sides):
        if not replicas.is_alone(self.distribute_strategy):
            # Optimizers exchange gradients, which they cannot on a condition: no gradient, but momentum goes on.
            self._update(*tf.nest.map_structure(lambda g: tf.where(finite, g, tf.zeros_like(g)), sides))
            return

        def update():
            self._update(*sides)
            return True

        tf.cond(finite, update, lambda: False)

    def _checked(self, total, sides):
        """The gradients of a step, unless it would poison the weights, on any replica."""
        with tf.control_dependencies([tf.debugging.assert_all_finite(total, divergence.message(self.decoder))]):
            return tf.nest.map_structure(tf.identity, sides)

    def test_step(self, data):
        x = _x_of(data)
        # Keras resets metrics before each evaluation, so every evaluation draws the same particles.
        seed = self._seed(_EVALUATION, self._evaluated_batches.result())
        self._evaluated_batches.update_state(1)
        return self._track(x, self.log_weights(x, self.objective.m, self.objective.k, seed))

    @property
    def metrics(self):
        own = [*self._trackers.values()]
        # Keras' own of a loss, and what counts batches, are none; what is left is of a subclass, or of layers.
        not_others = {id(metric) for metric in (*own, self._evaluated_batches, getattr(self, "_loss_tracker", None))}
        return own + [metric for metric in super().metrics if id(metric) not in not_others]

    def reset_metrics(self):
        super().reset_metrics()
        self._evaluated_batches.reset_state()

    def _training_seed(self):
        return self._seed(_TRAINING, self.optimizer.batches)

    def _seed(self, stream, step):
        """`particles.derive_seed`, but for what is the same in all steps: XLA's random integers are others."""
        with tf.init_scope():
            first, _ = particles.derive_seed(self.seed, stream, 0).numpy()
        with tf.device("CPU:0"):  # Of a GPU's numbers of 32 bits TensorFlow keeps some on the host: to and fro.
            return tf.stack([int(first), tf.cast(step, tf.int32)])

    def _track(self, x, log_weights):
        decoder_bound = self.objective.decoder_bound.reported(log_weights)
        values = {
            "loss": -decoder_bound,
            "decoder_bound": decoder_bound,
            "encoder_bound": self.objective.encoder_bound.reported(log_weights),
            "elbo": bounds.Elbo().value(log_weights),
            "importance_ess": bounds.importance_ess(log_weights),
            **{name: bound.companion_value(log_weights) for name, bound in self.objective.companions.items()},
        }
        if "negative_kl" in self._trackers:
            values["negative_kl"] = decoder_bound - self.decoder.marginal_log_prob(x)
        for name, tracker in self._trackers.items():
            tracker.update_state(values[name])
        logs = {}
        for metric in self.metrics:
            result = metric.result()
            logs.update(result if isinstance(result, dict) else {metric.name: result})
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras averages over their first axis, and then shows the metrics' own values.
            logs = {name: tf.expand_dims(value, 0) for name, value in logs.items()}
        return logs


def _compiled(function):
    """The same by XLA."""
    return tf.function(function, jit_compile=True, autograph=False)


def _x_of(data):
    """x of what Keras hands to a step: y is of no interest.

    Raises:
      ValueError: if rows have weights, or a batch is no tensor.
    """
    x, _, weights = keras.utils.unpack_x_y_sample_weight(data)
    examples.check_unweighted(sample_weight=weights)
    if isinstance(x, list | tuple | dict):
        raise ValueError(f"x must be one array, or batches of it: received batches that are a {type(x).__name__}.")
    return x


def check_training(objective, strategy, backward_particles, particle_chunk, steps_per_execution):
    """Checks arguments of `compile` before there is a model.

    Raises:
      ValueError: as `ImportanceWeightedAutoencoder.compile`.
    """
    count = objective.m * objective.k
    if backward_particles is not None and integer("backward_particles", backward_particles) >= count:
        raise ValueError(
            f"backward_particles must be below M K = {count}: received {backward_particles}. Leave it out."
        )
    if particle_chunk is not None:
        integer("particle_chunk", particle_chunk)
    if strategy.num_replicas_in_sync > 1 and steps_per_execution != 1:
        raise ValueError(
            f"steps_per_execution must be 1 on several devices: received {steps_per_execution!r}. Leave it out."
        )
