"""Coupling flows: smooth invertible maps that cost one pass in either direction."""

from typing import NamedTuple

import tensorflow as tf

from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import noise
from iwae_zoo.distributions.moments import SampledMoments

__all__ = ["CouplingFlow", "Weight", "weights"]

# Bound of the logarithm of the factor by which a coupling layer stretches a value: keeps the inverse accurate.
_MAX_LOG_SCALE = 2.0


class Weight(NamedTuple):
    """An array of weights that all rows share; whoever has layers keeps it.

    Attributes:
      shape: tuple of int.
      random: whether it starts at Glorot's uniform numbers, and not at zeros.
    """

    shape: tuple[int, ...]
    random: bool


def weights(latent_size, num_couplings, hidden_size):
    """The weights of a flow that starts as the identity.

    Args:
      latent_size: int, D, at least 2.
      num_couplings: int, L, number of coupling layers; two move each value once.
      hidden_size: int, H, units in each layer's network.

    Returns:
      List of `Weight`, three for each layer: kernels [A, H] and [H, 2 (D - A)], bias [2 (D - A)].

    Raises:
      ValueError: on a latent of one dimension, which has no two parts.
    """
    if latent_size < 2:
        raise ValueError(
            f"A coupling flow needs a latent of at least 2 dimensions: received {latent_size}. Choose another "
            "posterior or prior."
        )
    listed = []
    for layer in range(num_couplings):
        first = latent_size // 2
        given, moved = (first, latent_size - first) if layer % 2 == 0 else (latent_size - first, first)
        listed += [
            Weight((given, hidden_size), True),
            Weight((hidden_size, 2 * moved), False),
            Weight((2 * moved,), False),
        ]
    return listed


class CouplingFlow(SampledMoments):
    """What a distribution becomes under affine coupling layers.

    z = f_L(... f_1(u)),  u ~ base;   f_l: the one half of the values stays, the other becomes v -> exp(s) v + t
    (s, t) = network_l(the half that stays),   log q(z) = log base(u) - sum_l sum s_l

    Which half moves alternates. Each network has one hidden layer of tanh, whose biases are numbers of the row: that is
    how a flow of q(z | x) depends on x. With weights of zero behind the hidden layers the flow is its base.

    Args:
      base: reparameterised `tfd.Distribution` that draws by row, batch [*b], event [D].
      hidden_biases: float tensor [*b, L, H].
      shared: sequence of 3 L float tensors, shared by all rows, as `weights` lists them.

    #### References
    Dinh, Sohl-Dickstein, Bengio. Density Estimation using Real NVP. ICLR 2017, section 3. https://arxiv.org/abs/1605.08803
    """

    samples_by_row = True

    def __init__(self, base, hidden_biases, shared, name="CouplingFlow"):
        parameters = dict(locals())
        self._base = base
        biases, shared = tf.unstack(hidden_biases, axis=-2), [tf.convert_to_tensor(weight) for weight in shared]
        self._layers = list(zip(biases, shared[::3], shared[1::3], shared[2::3], strict=True))
        super().__init__(
            dtype=base.dtype,
            reparameterization_type=base.reparameterization_type,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @property
    def seeds_by_row(self):
        """As of the base."""
        return noise.takes_seeds_by_row(self._base)

    def forward(self, u):
        """z [..., *b, D] of u, and log |det dz / du| [..., *b]."""
        return self._through(u, inverse=False)

    def inverse(self, z):
        """u [..., *b, D] of z, and log |det du / dz| [..., *b]."""
        return self._through(z, inverse=True)

    def _through(self, values, inverse):
        size = self.event_shape[0]
        first, second = tf.split(values, [size // 2, size - size // 2], axis=-1)
        log_det = tf.zeros_like(values[..., 0])
        # The first layer moves the second half, and an odd one the first.
        order = list(enumerate(self._layers))
        for number, (bias, kernel, output_kernel, output_bias) in reversed(order) if inverse else order:
            given, moved = (first, second) if number % 2 == 0 else (second, first)
            hidden = tf.tanh(_product(given, kernel) + bias)
            log_scale, shift = tf.split(_product(hidden, output_kernel) + output_bias, 2, axis=-1)
            log_scale = _MAX_LOG_SCALE * tf.tanh(log_scale / _MAX_LOG_SCALE)
            moved = (moved - shift) * tf.exp(-log_scale) if inverse else moved * tf.exp(log_scale) + shift
            first, second = (given, moved) if number % 2 == 0 else (moved, given)
            log_det += tf.reduce_sum(-log_scale if inverse else log_scale, axis=-1)
        if len(self._layers) == 1:  # The half that it does not move has the batch of the other too.
            first, second = (half + tf.zeros_like(log_det)[..., tf.newaxis] for half in (first, second))
        return tf.concat([first, second], axis=-1), log_det

    def _event_shape(self):
        return self._base.event_shape

    def _event_shape_tensor(self):
        return self._base.event_shape_tensor()

    def _batch_shape(self):
        return self._base.batch_shape

    def _batch_shape_tensor(self):
        return self._base.batch_shape_tensor()

    def _log_prob(self, z):
        u, log_det = self.inverse(z)
        return self._base.log_prob(u) + log_det

    def _sample_n(self, n, seed=None, first_row=0):
        return self.forward(self._base.sample(n, seed=seed, first_row=first_row))[0]


def _product(x, kernel):
    """x [..., A] times a kernel [A, H], as one tall matrix."""
    rows = tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel)
    return tf.reshape(rows, [*shape_of(x)[:-1], kernel.shape[1]])
