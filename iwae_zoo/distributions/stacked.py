"""Layers of latents, each given the one before it, as one distribution over one vector."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo.distributions import noise
from iwae_zoo.distributions.moments import SampledMoments, point

__all__ = ["Stacked"]


class Stacked(SampledMoments):
    """The joint distribution of L layers, z = [z_1, ..., z_L], of which each depends on its neighbour.

    log q(z) = log q(z_1) + log q(z_2 | z_1) + ... + log q(z_L | z_{L-1})
    log p(z) = log p(z_L) + log p(z_{L-1} | z_L) + ... + log p(z_1 | z_2), with `reverse`

    Each conditional is evaluated at the layers of the given z, so that the gradient by z has every path from layer to
    layer in it. Draws are reparameterised, by row, where those of all layers are.

    Mean and standard deviation of the first layer that is drawn are its own; those of the others are of draws, as in
    `SampledMoments`; where a layer does not draw by row, they have errors of their own in each row.

    Args:
      first: `tfd.Distribution`, batch [*b], event [D], of the layer that is drawn first.
      conditionals: sequence of functions, each from the layer that was drawn before, [..., *b, D], to a
        `tfd.Distribution` of batch [..., *b].
      reverse: whether the layer that is drawn first is the last one of the vector.

    Raises:
      ValueError: if a conditional's distribution has other ranks.

    #### Examples
    >>> bottom = tfd.MultivariateNormalDiag(tf.zeros([2]))
    >>> stacked = Stacked(bottom, [lambda z: tfd.MultivariateNormalDiag(z[..., :1])])  # z_2 ~ N(z_11, 1)
    >>> stacked.layer_sizes
    (2, 1)
    >>> same = stacked.log_prob([1.0, 0.0, 1.0]) == bottom.log_prob([1.0, 0.0]) + bottom.log_prob([0.0, 0.0]) / 2.0
    >>> bool(same)
    True

    #### References
    Burda, Grosse, Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016, section 2.
    https://arxiv.org/abs/1509.00519
    Bauer, Mnih. Generalized Doubly Reparameterized Gradient Estimators. ICML 2021, on several layers.
    https://arxiv.org/abs/2101.11046
    """

    samples_by_row = True

    def __init__(self, first, conditionals, reverse=False, name="Stacked"):
        parameters = dict(locals())
        self._first = first
        self._conditionals = tuple(conditionals)
        self._reverse = reverse
        layers = [first]
        for conditional in self._conditionals:  # What they give is known when they are called.
            layers.append(conditional(tf.zeros([1, *layers[-1].event_shape], first.dtype)))
            if layers[-1].event_shape.rank != 1 or layers[-1].batch_shape.rank != 1:
                raise ValueError(
                    "For z [..., C] a conditional must return a distribution of batch shape [...] and event shape [D]: "
                    f"received batch shape {layers[-1].batch_shape} and event shape {layers[-1].event_shape}. "
                    "tfd.Independent turns a batch axis into an event axis."
                )
        self.parts = tuple(layers)
        # Whether each layer's `sample` takes seeds [B, 2].
        self.seeds_by_row = all(noise.takes_seeds_by_row(layer) for layer in layers)
        self._sizes = tuple(layer.event_shape[-1] for layer in layers)
        reparameterized = all(layer.reparameterization_type == tfd.FULLY_REPARAMETERIZED for layer in layers)
        super().__init__(
            dtype=first.dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED if reparameterized else tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @property
    def layer_sizes(self):
        """Tuple of int, the sizes of z_1, ..., z_L."""
        return self._in_place(self._sizes)

    def _in_place(self, layers):
        """From the order in which layers are drawn to that in the vector, and back."""
        return layers[::-1] if self._reverse else layers

    def _event_shape(self):
        return tf.TensorShape([sum(self._sizes)])

    def _event_shape_tensor(self):
        return tf.constant([sum(self._sizes)])

    def _batch_shape(self):
        return self._first.batch_shape

    def _batch_shape_tensor(self):
        return self._first.batch_shape_tensor()

    def _log_prob(self, z):
        layers = self._in_place(tf.split(z, self.layer_sizes, axis=-1))
        log_prob = self._first.log_prob(layers[0])
        for conditional, given, layer in zip(self._conditionals, layers[:-1], layers[1:], strict=True):
            log_prob += conditional(given).log_prob(layer)
        return log_prob

    def _sample_n(self, n, seed=None, first_row=0, hold=None):
        """As of any distribution, but for `hold`: a function of each layer's distribution given the one before it and
        the layer that was drawn from it, [n, *b, D], which returns what stands in its place from there on.
        """
        hold = hold or (lambda distribution, layer: layer)
        seeds = noise.split_seed(seed, len(self._sizes))
        layers = [hold(self._first, _draw([n], self._first, seeds[0], first_row))]
        alone = self.batch_shape.rank == 0  # Then there is one row, and the conditionals have to see it.
        layers = [layers[0][:, tf.newaxis]] if alone else layers
        for conditional, layer_seed in zip(self._conditionals, seeds[1:], strict=True):
            distribution = conditional(layers[-1])
            layers.append(hold(distribution, _draw([], distribution, layer_seed, first_row)))
        z = tf.concat(self._in_place(layers), axis=-1)
        return z[:, 0] if alone else z

    def point(self):
        """One z that stands for all, [*b, D]: the mean of a continuous z.

        Where a layer is discrete, of which a mean is no draw: each layer's own, given that of the layer before it.
        """
        if self.reparameterization_type == tfd.FULLY_REPARAMETERIZED:
            return self.mean()
        layers = [point(self._first)]
        for conditional in self._conditionals:
            layers.append(point(conditional(layers[-1])))
        return tf.concat(self._in_place(layers), axis=-1)

    def _mean(self):
        return self._with_first(self._first.mean(), super()._mean())

    def _stddev(self):
        return self._with_first(self._first.stddev(), super()._stddev())

    def _with_first(self, own, sampled):
        """Moments with those of the first layer in their place."""
        layers = self._in_place(tf.split(sampled, self.layer_sizes, axis=-1))
        return tf.concat(self._in_place([own, *layers[1:]]), axis=-1)


def _draw(shape, distribution, seed, first_row):
    if getattr(distribution, "samples_by_row", False):
        return distribution.sample(shape, seed=seed, first_row=first_row)
    # Other parts of a batch get other draws.
    label = tf.cast(0 if first_row is None else first_row, seed.dtype)
    return distribution.sample(shape, seed=tf.random.experimental.stateless_fold_in(seed, label))
