"""The paths of densities from p0(z) to p(x, z) of a tile of examples, and chains that walk along them; for graphs.

    log f_beta(z) = (1 - beta) log p0(z) + beta log p(x, z),   beta from 0 to 1

Chains move by Hamiltonian Monte Carlo, with unit masses in the coordinates u of z = mode + scale u. Path, coordinates
and step sizes are functions of x and of random numbers that the chains do not see, so that the mean weight stays
unbiased.

Of T examples, each with C chains, tensors are [C, T, ...]. Seeds are those of rows, [T, 2], or one [2] for the only
example. Examples share nothing but the values of beta.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo.distributions import moments, noise, philox
from iwae_zoo.estimation import laplace
from iwae_zoo.estimation.rows import swapped
from iwae_zoo.model import particles, supports

__all__ = [
    "INITIAL",
    "Initial",
    "Path",
    "Randomness",
    "State",
    "anneal",
    "check_continuous",
    "is_continuous",
    "step_sizes",
]


class Initial(NamedTuple):
    """How a path begins, and how it is walked where nothing else is asked for.

    Attributes:
      shares: dict from a distribution's name to its share in the mixture p0.
      whitened: bool, whether chains move in the coordinates of the Laplace approximation, or in those of z.
      temperatures: number of values of beta.
      chains: number of chains.
      leapfrog_steps: gradients for each transition.
    """

    shares: dict[str, float]
    whitened: bool
    temperatures: int
    chains: int
    leapfrog_steps: int


INITIAL = {
    # The shares of the others are a defence: a mode that the Laplace approximation does not know, or a tail that it is
    # too light for, costs variance and not truth. The prior's is small: in many dimensions no chain that walks back
    # from p(z | x) reaches it, which leaves the upper bound of a sandwich too high by -log(1 - share). It is one chain
    # of the 32: were it a chain of every other example, errors would not know.
    "laplace": Initial({"laplace": 27 / 32, "encoder": 4 / 32, "prior": 1 / 32}, True, 50, 32, 3),
    "prior": Initial({"prior": 1.0}, False, 1000, 16, 10),
    "encoder": Initial({"encoder": 1.0}, False, 100, 32, 5),
}

# Of the step sizes: the acceptance that they aim at, the first one, how far a transition's own may be from it, and the
# change of their logarithm for each unit of excess acceptance.
_TARGET_ACCEPTANCE, _FIRST_STEP_SIZE, _JITTER, _ADAPTATION_RATE = 0.75, 0.5, 0.3, 0.5
# Of the pilot run that finds them: chains; transitions at the path's start where coordinates are not whitened; and
# along it, at the least, and of how many temperatures each.
_PILOT_CHAINS, _WARM_UP, _LEAST_PILOT, _PILOT_SHARE = 8, 50, 8, 5


class State(NamedTuple):
    """Where chains are: u [C, T, D], both densities there [C, T], and their gradients by u [C, T, D]."""

    u: tf.Tensor
    log_joint: tf.Tensor
    log_start: tf.Tensor
    joint_gradient: tf.Tensor
    start_gradient: tf.Tensor

    @property
    def log_ratio(self):
        """The derivative of log f_beta by beta, log p(x, z) - log p0(z): [C, T], float64."""
        return tf.cast(self.log_joint - self.log_start, tf.float64)

    def log_density(self, beta):
        """log f_beta [C, T], but for the determinant of the coordinates."""
        return (1.0 - beta) * self.log_start + beta * self.log_joint

    def where(self, condition, other):
        """The `State` of which the chains where the condition [C, T] holds are in the other's."""
        column = condition[..., tf.newaxis]
        return State(
            *(tf.where(column if v.shape.rank == 3 else condition, w, v) for v, w in zip(self, other, strict=True))
        )

    def only(self, chain):
        """The `State` of one chain of each example: of C = 1, from int [T]."""
        places = tf.stack([tf.cast(chain, tf.int32), tf.range(self.u.shape[1])], axis=1)
        return State(*(tf.gather_nd(value, places)[tf.newaxis] for value in self))

    def gradient(self, beta):
        """The gradient of `log_density` by u [C, T, D]."""
        return (1.0 - beta) * self.start_gradient + beta * self.joint_gradient


class Randomness:
    """Random numbers of many transitions, by the number of the transition.

    Args:
      seed: stateless seed [2], or [T, 2].
    """

    def __init__(self, seed):
        seeds = [particles.derive_seed(seed, label) for label in range(2)]
        by_row = noise.is_by_row(seed)
        self._of_normals, self._of_uniforms = map(philox.streams, seeds) if by_row else seeds
        self._batch = tf.constant([seeds[0].shape[0] if by_row else 1])

    def normal(self, count, size, t, dtype):
        """Standard normal numbers [count, T, size] for transition t."""
        return noise.by_row(noise.normal, count, self._batch, size, self._of_normals, t, dtype)

    def uniform(self, count, t, dtype):
        """Numbers [count, T] in [0, 1) for transition t."""
        return noise.by_row(noise.uniform, count, self._batch, 1, self._of_uniforms, t, dtype)[..., 0]


def is_continuous(posterior):
    """Whether draws of a distribution move along gradients, anywhere in R^D."""
    return posterior.reparameterization_type == tfd.FULLY_REPARAMETERIZED and supports.is_everywhere(posterior)


def check_continuous(posterior):
    """Raises ValueError unless `is_continuous`."""
    if not is_continuous(posterior):
        raise ValueError(
            f"Annealing moves z along gradients in R^D, and {posterior.name} is no distribution of a continuous z "
            "that may be anywhere there. Use importance sampling (method='importance')."
        )


class Path:
    """The path of each example of a tile.

    Args:
      networks: anything with `encoder`, `decoder` and `prior`, such as a model.
      x: tensor [T, ...].
      initial: `Initial`.
      num_leapfrog_steps: int, gradients for each transition.

    Raises:
      ValueError: if z cannot be moved along a gradient.
    """

    def __init__(self, networks, x, initial, num_leapfrog_steps):
        posterior, prior = networks.encoder.posterior(x), networks.prior.distribution()
        check_continuous(posterior)
        self._decoder, self._prior, self._x = networks.decoder, networks.prior, x
        self._num_leapfrog_steps = num_leapfrog_steps
        self.whitened = initial.whitened
        self._size, self._dtype = posterior.event_shape[0], posterior.dtype
        self._coordinates = (
            laplace.approximate(networks, x, moments.mean(posterior))
            if initial.whitened
            else laplace.standard(x.shape[0], self._size, self._dtype)
        )
        # p0 is a mixture of the Laplace approximation, where chains move in its coordinates, and of these.
        known = {"encoder": posterior, "prior": prior}
        self._distributions = [known[name] for name in initial.shares if name in known]
        self._shares = np.array(list(initial.shares.values()))
        self._log_shares = tf.constant(np.log(self._shares), self._dtype)
        # Traced once for each number of chains, not again for each step of each kind of transition. Once for any number
        # would be less to trace, but more to optimize: shapes that are not known have to be computed.
        self._evaluate = tf.function(self._state_at, autograph=False)

    def z(self, u):
        """z [C, T, D] at the coordinates u [C, T, D]."""
        return self._coordinates.z(u)

    def at(self, z):
        """`State` at z [C, T, D]."""
        return self._evaluate(self._coordinates.u(z))

    def draw(self, num_chains, seed):
        """`State` of draws from p0. Of its parts each gets its share of the chains, so that these differ less."""
        first, second, *others = [particles.derive_seed(seed, i) for i in range(2 + len(self._distributions))]
        batch = tf.constant([self._x.shape[0]])
        drawn = []
        if self.whitened:
            drawn.append(self.z(noise.by_row(noise.normal, num_chains, batch, self._size, first, dtype=self._dtype)))
        drawn += [_draws(part, num_chains, own) for part, own in zip(self._distributions, others, strict=True)]
        start = noise.by_row(noise.uniform, 1, batch, 1, second, dtype=tf.float64)[..., 0]
        place = (tf.range(num_chains, dtype=tf.float64)[:, tf.newaxis] + start) / num_chains
        part = tf.reduce_sum(tf.cast(place[..., tf.newaxis] >= np.cumsum(self._shares)[:-1], tf.int32), axis=-1)
        return self.at(tf.gather(tf.stack(drawn, axis=2), part, axis=2, batch_dims=2))

    def move(self, state, beta, step_size, randomness, t):
        """Transition t, which leaves f_beta invariant.

        Args:
          state: `State` of C chains.
          beta: float64 tensor [].
          step_size: float64 tensor [T].
          randomness: `Randomness`, of all transitions.
          t: int tensor [].

        Returns:
          The new `State`, and the acceptance probabilities, float64 [C, T].
        """
        count = state.u.shape[0]
        beta, step_size = tf.cast(beta, self._dtype), tf.cast(step_size, self._dtype)
        momentum = randomness.normal(count, self._size, t, self._dtype)
        jitter, uniform = tf.split(randomness.uniform(2 * count, t, self._dtype), 2)
        # With one fixed step size a trajectory of unit variances can come back to where it began.
        step = (step_size * (1.0 + _JITTER * (2.0 * jitter - 1.0)))[..., tf.newaxis]
        after, p = state, momentum + 0.5 * step * state.gradient(beta)
        for _ in range(self._num_leapfrog_steps):  # Not a loop in the graph: in another loop it takes twice as long.
            after = self._evaluate(after.u + step * p)
            p += step * after.gradient(beta)
        p -= 0.5 * step * after.gradient(beta)  # The momentum's last step is half of one.
        gain = after.log_density(beta) - state.log_density(beta)
        gain += 0.5 * tf.reduce_sum(tf.square(momentum) - tf.square(p), axis=-1)
        gain = tf.where(tf.math.is_nan(gain), tf.constant(-np.inf, gain.dtype), gain)
        accepted = tf.math.log(uniform) < gain
        return state.where(accepted, after), tf.exp(tf.minimum(tf.cast(gain, tf.float64), 0.0))

    def _state_at(self, u):
        """`State` at u [C, T, D]."""
        z = self.z(u)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(z)
            log_joint = particles.log_joint(self._decoder, self._prior, self._x, z)
            log_parts = [part.log_prob(z) for part in self._distributions]
        by_z = tf.concat([_slope(tape, value, z) for value in (log_joint, *log_parts)], axis=0)
        by_u = laplace.product(by_z, self._coordinates.scale)
        joint_gradient, *gradients = tf.split(by_u, 1 + len(log_parts))
        if self.whitened:
            log_parts, gradients = [self._coordinates.log_prob(u), *log_parts], [-u, *gradients]
        # The gradient of a mixture is that of its parts, in their proportions at z.
        log_parts = tf.stack(log_parts) + self._log_shares[:, tf.newaxis, tf.newaxis]
        log_start = tf.reduce_logsumexp(log_parts, axis=0)
        proportions = tf.unstack(tf.exp(log_parts - log_start)[..., tf.newaxis])
        start_gradient = tf.add_n([p * gradient for p, gradient in zip(proportions, gradients, strict=True)])
        return State(u, log_joint, log_start, joint_gradient, start_gradient)


def _draws(distribution, count, seed):
    """Draws [C, T, D] of a distribution of each example, batch [T], or of one that they share."""
    if distribution.batch_shape.rank:
        return distribution.sample([count], seed=seed)
    if noise.is_by_row(seed):
        specification = tf.TensorSpec([count, *distribution.event_shape], distribution.dtype)
        drawn = tf.map_fn(lambda own: distribution.sample([count], seed=own), seed, fn_output_signature=specification)
        return swapped(drawn)
    return distribution.sample([count, 1], seed=seed)


def _slope(tape, log_density, z):
    """The gradient [C, T, D] of a log-density [C, T] by z; zero where it is not finite, whence a chain is sent back."""
    gradient = tape.gradient(log_density, z)
    if gradient is None:
        raise ValueError(
            "Annealing moves z along gradients, and log p(x, z) or log p0(z) has none by z. Use importance sampling "
            "(method='importance')."
        )
    return tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))


def step_sizes(path, seed, betas):
    """Step sizes [N, T] for transitions at `betas` [N], found by a pilot run of other chains.

    Sizes that followed the acceptance of the very chains that are weighed would make each transition depend on the
    past, and lose its invariant density, on which the bounds rest.
    """
    warm_up = 0 if path.whitened else _WARM_UP
    length = tf.maximum(tf.size(betas) // _PILOT_SHARE, _LEAST_PILOT)
    pilot = tf.concat([tf.zeros([warm_up], tf.float64), tf.gather(betas, _spread(length, tf.size(betas)))], axis=0)

    def transition(t, state, log_step_size, log_step_sizes):
        state, acceptance = path.move(state, pilot[t], tf.exp(log_step_size), randomness, t)
        log_step_size += _ADAPTATION_RATE * (tf.reduce_mean(acceptance, axis=0) - _TARGET_ACCEPTANCE)
        return t + 1, state, log_step_size, log_step_sizes.write(t, log_step_size)

    randomness = Randomness(particles.derive_seed(seed, 1))
    begin = path.draw(_PILOT_CHAINS, particles.derive_seed(seed, 0))
    first = tf.fill(begin.u.shape[1:2], tf.constant(math.log(_FIRST_STEP_SIZE), tf.float64))
    found = tf.TensorArray(tf.float64, tf.size(pilot), element_shape=first.shape)
    *_, found = tf.while_loop(lambda t, *_: t < tf.size(pilot), transition, (0, begin, first, found))
    return tf.exp(tf.gather(found.stack()[warm_up:], _spread(tf.size(betas), length)))


def _spread(count, size):
    """Places among `size`, the first and the last ones of them and others between, as evenly as can be: int [count]."""
    return tf.cast(tf.round(tf.range(count) * (size - 1) / (count - 1)), tf.int32)


def anneal(path, seed, state, betas, sizes):
    """Chains that walk from `state` through `betas` [N], in either direction.

    Towards larger beta the mean weight estimates p(x) where the state is drawn from p0; towards smaller beta, 1 / p(x)
    where it is drawn from p(z | x). Each increment is weighed before the transition that has its end as invariant
    density.

    Args:
      path: `Path`.
      seed: stateless seed [2], or [T, 2].
      state: `State` of C chains.
      betas: float64 tensor [N].
      sizes: float64 tensor [N, T], step sizes.

    Returns:
      Log weights [C, T], acceptance probabilities [C, T], mean over the transitions, both float64; and the last
      `State`, after the transition at the last but one beta.
    """
    increments, randomness = betas[1:] - betas[:-1], Randomness(seed)

    def transition(t, state, log_weights, acceptance):
        log_weights += increments[t - 1] * state.log_ratio
        state, accepted = path.move(state, betas[t], sizes[t], randomness, t)
        return t + 1, state, log_weights, acceptance + accepted

    zeros = tf.zeros(tf.shape(state.u)[:2], tf.float64)
    # Nothing is weighed after a transition at the path's end: there is none.
    last = tf.size(betas) - 1
    _, state, log_weights, acceptance = tf.while_loop(
        lambda t, *_: t < last, transition, (1, state, zeros, zeros), parallel_iterations=1
    )
    log_weights += increments[-1] * state.log_ratio
    return log_weights, acceptance / tf.cast(last - 1, tf.float64), state
