"""One example, or a tile of them, annealed: from a budget to an answer, a draw, or both bounds; TensorFlow operations
only, for graphs.

Of one example they are plain ones: compiling what is fused takes seconds, and of so few chains it saves nothing.
"""

import contextlib
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import integer, look_up
from iwae_zoo.distributions import fusion, noise
from iwae_zoo.estimation import paths, psis
from iwae_zoo.estimation.streaming import standard_error, supported
from iwae_zoo.model import particles

__all__ = ["OUTPUTS", "Budget", "bracket", "estimate", "sample", "schedule"]

# Transitions at the path's end for a draw from the posterior, after one chain has been chosen.
_LAST_MOVES = 5
# Sub-streams of an example's seed.
_ADAPTING, _DRAWING, _FORWARD, _REVERSE, _CHOOSING, _MOVING = range(6)


def schedule(num_temperatures):
    """Inverse temperatures on a sigmoid, dense at both ends of the path.

    beta_t = (s_t - s_1) / (s_T - s_1),   s_t = sigmoid(4 (2 t - T - 1) / (T - 1)),   t = 1 ... T

    Args:
      num_temperatures: int, T, at least 2.

    Returns:
      float64 array [T], increasing from exactly 0 to exactly 1.

    Raises:
      ValueError: if there are fewer than 2 temperatures.

    #### Examples
    >>> schedule(3)
    array([0. , 0.5, 1. ])

    #### References
    Wu, Burda, Salakhutdinov, Grosse. On the Quantitative Analysis of Decoder-Based Generative Models. ICLR 2017.
    https://arxiv.org/abs/1611.04273
    """
    integer("num_temperatures", num_temperatures, least=2)
    sigmoid = 1.0 / (1.0 + np.exp(-np.linspace(-4.0, 4.0, num_temperatures)))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


class Budget(NamedTuple):
    """How chains walk, and how far.

    Attributes:
      initial: what they start from: "laplace", "encoder" or "prior".
      num_temperatures: int, T.
      num_chains: int, C.
      num_leapfrog_steps: int, gradients for each transition.
    """

    initial: str
    num_temperatures: int
    num_chains: int
    num_leapfrog_steps: int

    @classmethod
    def of(cls, initial="laplace", num_temperatures=None, num_chains=None, num_leapfrog_steps=None):
        """A budget whose numbers are those of `paths.INITIAL` where they are None.

        Raises:
          ValueError: on an unknown start, or a number out of range.
        """
        usual = look_up(paths.INITIAL, initial, "start of an annealing path (initial)")
        chosen = {
            "num_temperatures": (num_temperatures, usual.temperatures),
            "num_chains": (num_chains, usual.chains),
            "num_leapfrog_steps": (num_leapfrog_steps, usual.leapfrog_steps),
        }
        numbers = {
            name: integer(name, default if number is None else number, least=2 if name == "num_temperatures" else 1)
            for name, (number, default) in chosen.items()
        }
        return cls(initial, **numbers)

    @property
    def betas(self):
        """float64 array [T], from 0 to 1: in equal steps where both ends of the path are alike."""
        equal = paths.INITIAL[self.initial].whitened
        return np.linspace(0.0, 1.0, self.num_temperatures) if equal else schedule(self.num_temperatures)

    @property
    def traced(self):
        """The budget without what a traced function takes as an argument."""
        return self._replace(num_temperatures=0)


# What `estimate` gives.
_FLOATS = ("log_prob", "standard_error", "ess", "pareto_k", "acceptance_rate")
OUTPUTS = dict.fromkeys(_FLOATS, tf.TensorSpec([], tf.float64)) | {"in_support": tf.TensorSpec([], tf.bool)}


def estimate(networks, x, seed, budget, betas):
    """log p(x) of one example, or of a tile of T examples.

    Args:
      networks: anything with `encoder`, `decoder` and `prior`, such as a model.
      x: tensor [...], one example; or a tile [T, ...], from an encoder whose draws take seeds by row.
      seed: stateless seed [2]; or [T, 2].
      budget: `Budget`; its number of temperatures does not matter.
      betas: float64 tensor [N].

    Returns:
      dict of tensors [], or [T], by the names of `OUTPUTS`.
    """
    with _operations(seed):
        walk = _Walk(networks, x, seed, budget, betas)
        return walk.summary(*walk.forward()[:2])


def bracket(networks, x, z, seed, budget, betas):
    """Both bounds on log p(x) of one example, or of a tile; arguments as in `estimate`, and z, a draw from p(z | x).

    Returns:
      Two dicts by the names of `OUTPUTS`: of p(x), and of 1 / p(x).
    """
    # Path and step sizes know nothing of z: it must not choose the transitions that it goes through.
    with _operations(seed):
        walk = _Walk(networks, x, seed, budget, betas)
        return walk.summary(*walk.forward()[:2]), walk.summary(*walk.reverse(z)[:2])


def sample(networks, x, seed, budget, betas):
    """A draw from p(z | x) of one example, nearly, and what `estimate` gives of the same chains; arguments as there.

    Returns:
      dict: z [D], or [T, D], and tensors [], or [T], by the names of `OUTPUTS`: z is NaN and ess 0 for an x that is
      not finite or outside the likelihood's support.
    """
    with _operations(seed):
        walk = _Walk(networks, x, seed, budget, betas)
        log_weights, acceptance, state = walk.forward()
        summary = walk.summary(log_weights, acceptance)
        z = walk.chosen(log_weights, state)
        return {**summary, "z": tf.where(summary["in_support"][..., tf.newaxis], z, tf.constant(np.nan, z.dtype))}


def _operations(seed):
    """The context in which examples are computed: of one by plain operations, of a tile with what is fused compiled."""
    return contextlib.nullcontext() if noise.is_by_row(seed) else fusion.portable()


class _Walk:
    """The paths of a tile of T examples, or of one, and the step sizes that were found for them."""

    def __init__(self, networks, x, seed, budget, betas):
        self._tiled = noise.is_by_row(seed)
        x, self._usable = particles.abreast(networks.decoder, x if self._tiled else x[tf.newaxis])
        self._path = paths.Path(networks, x, paths.INITIAL[budget.initial], budget.num_leapfrog_steps)
        self._num_chains, self._betas, self._seed = budget.num_chains, betas, seed
        self._step_sizes = paths.step_sizes(self._path, self._stream(_ADAPTING), betas)

    def _stream(self, label):
        return particles.derive_seed(self._seed, label)

    def forward(self):
        """As `paths.anneal`, from p0 to p(x, z)."""
        begin = self._path.draw(self._num_chains, self._stream(_DRAWING))
        return paths.anneal(self._path, self._stream(_FORWARD), begin, self._betas, self._step_sizes)

    def reverse(self, z):
        """As `paths.anneal`, from z [T, D], or [D], a draw from p(z | x), to p0."""
        z = z if self._tiled else z[tf.newaxis]
        begin = self._path.at(tf.repeat(z[tf.newaxis], self._num_chains, axis=0))
        betas, step_sizes = self._betas[::-1], self._step_sizes[::-1]
        return paths.anneal(self._path, self._stream(_REVERSE), begin, betas, step_sizes)

    def chosen(self, log_weights, state):
        """z [T, D], or [D], of one chain, chosen by weight, after a few transitions that leave p(z | x) invariant."""
        # The largest sum of log weight and Gumbel noise is chosen in proportion to the weights.
        batch = tf.constant([log_weights.shape[1]])
        uniform = noise.by_row(noise.uniform, self._num_chains, batch, 1, self._stream(_CHOOSING), dtype=tf.float64)
        best = tf.argmax(log_weights - tf.math.log(-tf.math.log(uniform[..., 0])))

        randomness = paths.Randomness(self._stream(_MOVING))

        def move(t, state):
            return t + 1, self._path.move(state, self._betas[-1], self._step_sizes[-1], randomness, t)[0]

        _, state = tf.while_loop(lambda t, _: t < _LAST_MOVES, move, (0, state.only(best)))
        return self._of_rows(self._path.z(state.u)[0])

    def summary(self, log_weights, acceptance):
        """dict by the names of `OUTPUTS`, from the log weights and acceptance probabilities [C, T] of chains."""
        log_sum, log_sum_of_squares = (tf.reduce_logsumexp(logs, axis=0) for logs in (log_weights, 2.0 * log_weights))
        in_support = self._usable & ~(log_sum == -np.inf)
        values = (
            log_sum - math.log(self._num_chains),
            standard_error(self._num_chains, log_sum, log_sum_of_squares),
            tf.exp(2.0 * log_sum - log_sum_of_squares),
            self._pareto_k(tf.transpose(log_weights)),
            tf.reduce_mean(acceptance, axis=0),
        )
        rows = supported(in_support, dict(zip(_FLOATS, values, strict=True)))
        return {name: self._of_rows(values) for name, values in {**rows, "in_support": in_support}.items()}

    def _pareto_k(self, log_weights):
        """Pareto shapes [T] of the chains' log weights [T, C]."""
        if self._num_chains == 1:
            return tf.constant(np.inf, tf.float64)
        largest = tf.sort(log_weights, direction="DESCENDING")[:, : psis.capacity(self._num_chains)]
        if not self._tiled:
            return psis.pareto_shape(largest[0], self._num_chains)[tf.newaxis]
        return psis.pareto_shapes(largest, tf.fill(largest.shape[:1], self._num_chains))

    def _of_rows(self, values):
        """Values [T, ...] of a tile; of one example, those of the only row."""
        return values if self._tiled else values[0]
