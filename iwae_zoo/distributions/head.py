"""What a likelihood head is: a small frozen value that reads a decoder body's last layer as the parameters of p(x | z).

A head knows which numbers x may hold, how many parameters each takes and in which units x is measured, and nothing of
the layers that compute its parameters.
"""

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from iwae_zoo._rows import Rows
from iwae_zoo.distributions import holes

__all__ = ["Likelihood"]


@dataclasses.dataclass(frozen=True)
class Likelihood(abc.ABC):
    """A family of distributions over x, independent over its values given the parameters.

    Attributes:
      start: float array [parameters_per_value, *data_shape], the parameters of the best single distribution for the
        training data, whatever z: where a decoder's output biases start. None before `fitted`. It is no part of a
        head's configuration: a trained decoder has biases of its own.
      shared_start: float array [shared_parameters, columns], the same for the shared parameters.
      missing: bool, whether values may be missing, as NaN. p(x) is then that of those that are there. `fitted` sees it
        in the data.

    Class attributes:
      name: str, as the table has it.
      title: str, for people.
      kinds: names of the kinds of data that it is for, as `data.kinds` has them.
      values: str, the numbers that x may hold.
      units: str, what log-likelihoods are reported in.
      by_blocks: bool, whether `_fitted` takes `Rows`, of which it looks at block by block.
      parameters_per_value: int, how many numbers a body has to give for each value of x.
      shared_parameters: int, how many numbers there are besides for each column of x, the same whatever z; weights of
        the decoder. Columns are the entries of the last axis: of an image, its channels.
    """

    start: Any = dataclasses.field(default=None, compare=False, repr=False, kw_only=True)
    shared_start: Any = dataclasses.field(default=None, compare=False, repr=False, kw_only=True)
    missing: bool = dataclasses.field(default=False, repr=False, kw_only=True)

    name: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    values: ClassVar[str]
    units: ClassVar[str] = "nats per example"
    by_blocks: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def parameters_per_value(self) -> int:
        """See above; a class attribute or a property."""

    @property
    def shared_parameters(self) -> int:
        """See above; a class attribute or a property."""
        return 0

    def parameter_shape(self, data_shape):
        """Shape of all parameters of one x."""
        return (self.parameters_per_value, *data_shape)

    def shared_shape(self, data_shape):
        """Shape of the shared parameters."""
        return (self.shared_parameters, data_shape[-1])

    @property
    def not_drawn(self) -> str | None:
        """What a message says of why draws of x do not have the density of log p(x | z); None where they have it."""
        return None

    @abc.abstractmethod
    def distribution(self, parameters, event_ndims, dtype=None):
        """p(x) given its parameters.

        Args:
          parameters: float tensor [..., parameters_per_value, *data_shape].
          event_ndims: int, the number of axes of one x.
          dtype: of log-likelihoods and draws; that of the parameters by default.
          shared: float tensor [shared_parameters, columns]; of heads that have shared parameters only.

        Returns:
          `tfd.Distribution`, batch [...], event `data_shape`.
        """

    def holds(self, x):
        """Whether each value is in the support, of x [..., V] with all its values in one axis.

        Returns:
          bool tensor [..., V]; None where the head does not say.
        """
        del x

    def fitted(self, data):
        """The same head, with `start`, `shared_start` and the units of its configuration fitted to the data.

        Args:
          data: array or `Rows` [N, *data_shape], training examples, or for draws of x their expectations; NaN where
            missing. Of more than 64 Mi values a sample is looked at where some are missing, or the head is not fitted
            `by_blocks`: evenly spaced rows.
        """
        data = Rows.of(data)
        missing = data.any_missing()
        if missing:
            data = Rows.of(holes.completed(data.sampled()))
        fitted = self._fitted(data if self.by_blocks else data.sampled())
        return dataclasses.replace(fitted, missing=True) if missing else fitted

    def covering(self, data):
        """The same head, in whose support values of other rows [N, ...] are too, of what no training row has."""
        del data
        return self

    def _fitted(self, data):
        """As `fitted`, of data without holes; what a head has to say, unless it overrides `fitted` itself.

        Args:
          data: array [N, *data_shape]; of a head that is fitted `by_blocks`, `Rows`.
        """
        raise NotImplementedError

    def features(self, x):
        """What an encoder's body is given: x on a scale that networks start from.

        Args:
          x: float tensor [B, *data_shape], no value missing. Numbers outside the support have finite features too.

        Returns:
          float tensor [B, ...].
        """
        return x

    def of_features(self, flags):
        """What is said of each value of x, said of its features: `flags` [B, *data_shape], shaped as `features`."""
        return flags

    def measures(self, log_prob, x):
        """The same mean log-likelihood in the other units that this kind of data is reported in.

        Args:
          log_prob: float, nats per example.
          x: array [N, ...], the examples, NaN where a value is missing.

        Returns:
          dict from a name to a float.
        """
        del log_prob, x
        return {}

    def independent(self):
        """The distribution of batch [] at `start`: what a model without a latent variable is worth.

        Raises:
          ValueError: if the head was not fitted.
        """
        if self.start is None:
            raise ValueError(f"The head {self.name!r} knows no data: use head.fitted(data).")
        shared = {} if self.shared_start is None else {"shared": tf.constant(self.shared_start)}
        return self.distribution(tf.constant(self.start), np.ndim(self.start) - 1, **shared)
