"""Log weights of a training batch that are not finite: their step is not taken, and somebody says so.

On the way of a step that XLA compiles there is nobody to say it, and the host is not to wait for a number of each: a
latch on the device falls, after which no step changes anything, and the host looks at it now and then.
"""

import keras
import tensorflow as tf

from iwae_zoo.distributions import likelihoods

__all__ = ["LOOK_EVERY", "NOT_FINITE", "Latch", "message"]

# How the error of a step begins that would have poisoned the weights.
NOT_FINITE = "The log weights of a training batch are not finite"
# Calls of the train function between two looks of the host: each ends the work that it has sent ahead.
LOOK_EVERY = 100


def message(decoder):
    """What the error says."""
    return (
        f"{NOT_FINITE}. Either x is outside the support of the likelihood ({likelihoods.support(decoder)}) or holds "
        "NaN, or training diverged: lower the learning rate"
    )


class Latch:
    """Falls at the first step that is not finite, and stays down until somebody has looked."""

    def __init__(self):
        self._down = keras.Variable(False, dtype="bool", trainable=False, name="latch")

    def passes(self, finite):
        """Whether a step may change anything; bool tensor [], as `finite`."""
        passes = finite & ~tf.convert_to_tensor(self._down)
        self._down.assign(~passes)
        return passes

    def lift(self):
        """As if nothing had been."""
        self._down.assign(False)

    def look(self, decoder):
        """Raises tf.errors.InvalidArgumentError if it is down, and lifts it."""
        if keras.ops.convert_to_numpy(self._down):
            self.lift()
            raise tf.errors.InvalidArgumentError(None, None, message(decoder))
