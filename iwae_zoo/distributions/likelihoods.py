"""Likelihood heads: a decoder body's last layer, read as the parameters of p(x | z).

A head is a small frozen value. It knows which numbers x may hold and how many parameters each takes, and nothing of the
layers that compute them. The table at the end is the only list of heads.
"""

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import look_up
from iwae_zoo.distributions.bernoulli import IndependentBernoulli

__all__ = ["TABLE", "Bernoulli", "Likelihood", "default", "from_config", "get", "names", "support", "to_config"]


@dataclasses.dataclass(frozen=True)
class Likelihood(abc.ABC):
    """A family of distributions over x, independent over its values given the parameters.

    Attributes:
      start: float array [parameters_per_value, *data_shape], the parameters of the best single distribution for the
        training data, whatever z: where a decoder's output biases start. None before `fitted`. It is no part of a
        head's configuration: a trained decoder has biases of its own.

    Class attributes:
      name: str, as the table has it.
      title: str, for people.
      kinds: names of the kinds of data that it is for, as `data.kinds` has them.
      values: str, the numbers that x may hold.
      units: str, what log-likelihoods are reported in.
      parameters_per_value: int, how many numbers a body has to give for each value of x.
    """

    start: Any = dataclasses.field(default=None, compare=False, repr=False, kw_only=True)

    name: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    values: ClassVar[str]
    units: ClassVar[str] = "nats per example"
    parameters_per_value: ClassVar[int]

    @abc.abstractmethod
    def distribution(self, parameters, event_ndims, dtype=None):
        """p(x) given its parameters.

        Args:
          parameters: float tensor [..., parameters_per_value, *data_shape].
          event_ndims: int, the number of axes of one x.
          dtype: of log-likelihoods and draws; that of the parameters by default.

        Returns:
          `tfd.Distribution`, batch [...], event `data_shape`.
        """

    @abc.abstractmethod
    def fitted(self, data):
        """The same head, with `start` fitted to the data.

        Args:
          data: array [N, *data_shape], training examples, or for draws of x their expectations.
        """

    def independent(self):
        """The distribution of batch [] at `start`: what a model without a latent variable is worth.

        Raises:
          ValueError: if the head was not fitted.
        """
        if self.start is None:
            raise ValueError(f"The head {self.name!r} knows no data: use head.fitted(data).")
        return self.distribution(tf.constant(self.start), np.ndim(self.start) - 1)


@dataclasses.dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Independent zeros and ones from logits; it starts at the logits of the means, as in the code of Burda et al.

    Args:
      smoothing: float, how far the means of `fitted` are kept from 0 and 1.

    #### Examples
    >>> head = Bernoulli().fitted(np.array([[0.0, 1.0], [1.0, 1.0]]))
    >>> head.start.round(2).tolist()  # The second mean is kept below 1.
    [[0.0, 6.91]]
    """

    smoothing: float = 1e-3

    name = "bernoulli"
    title = "Bernoulli"
    kinds = ("binary", "intensity")
    values = "0 and 1 only: binarise grey values"
    parameters_per_value = 1

    def distribution(self, parameters, event_ndims, dtype=None):
        return IndependentBernoulli(tf.squeeze(parameters, axis=-1 - event_ndims), event_ndims, dtype)

    def fitted(self, data):
        mean = np.clip(np.mean(data, axis=0), self.smoothing, 1.0 - self.smoothing)
        return dataclasses.replace(self, start=(np.log(mean) - np.log1p(-mean))[np.newaxis])


# A new likelihood is a class and a row. The first one for a kind of data is that kind's default.
TABLE = {"bernoulli": Bernoulli}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(identifier):
    """Returns a head by name; a `Likelihood` is returned as it is.

    Raises:
      ValueError: on an unknown name.
    """
    return identifier if isinstance(identifier, Likelihood) else look_up(TABLE, identifier, "likelihood")()


def support(decoder):
    """What x may hold for a decoder, for messages: str."""
    head = getattr(decoder, "head", None)
    return f"a {head.title} takes {head.values}" if isinstance(head, Likelihood) else "as its distribution has it"


def default(kind):
    """The head that data of a kind get if none is chosen.

    Raises:
      ValueError: if there is none for the kind.
    """
    for head in TABLE.values():
        if kind in head.kinds:
            return head()
    raise ValueError(f"There is no likelihood for data of kind {kind!r}. Choose one of {', '.join(TABLE)}.")


def to_config(head):
    """A JSON-compatible description of a head, from which `from_config` makes an equal one."""
    fields = {field.name: getattr(head, field.name) for field in dataclasses.fields(head) if field.name != "start"}
    return {"name": head.name, **fields}


def from_config(config):
    """The inverse of `to_config`."""
    arguments = dict(config)
    return look_up(TABLE, arguments.pop("name"), "likelihood")(**arguments)
