"""Batches that are made where the model trains: the host hands over which rows, and a seed.

A data set makes them, `ImportanceWeightedAutoencoder.fit` takes them, and its train step begins with `make`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Deferred", "Plan", "check_strategy"]


class Plan(NamedTuple):
    """What a batch is made from.

    Attributes:
      rows: int32 tensor [B], which examples.
      seed: int64 tensor [2], stateless seed of what is drawn of them.
    """

    rows: Any
    seed: Any


@dataclasses.dataclass(frozen=True)
class Deferred:
    """Batches as plans, and how x is made of one.

    Attributes:
      plans: `tf.data.Dataset` of `Plan`.
      make: function of a `Plan` that returns x, float32 [B, ...]; the train step is traced anew for another function.
      shape: shape of x, (None, ...).
    """

    plans: Any
    make: Callable
    shape: tuple


def check_strategy(strategy):
    """Raises ValueError if batches cannot be made on its device, because it has several."""
    if strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "data_on=device is for one device: each of several gets its part of a batch from the host. Leave it out, "
            "or pass --strategy=none."
        )
