"""Where the batches of training are gathered and binarised; the bits are the same.

host    in the input pipeline, on the processor
device  in the train step, of rows that all lie on the device: the pipeline hands over their numbers and a seed
auto    the latter on a GPU, where one device trains and the rows take a quarter of its memory at most
"""

import numpy as np
import tensorflow as tf

from iwae_zoo._deferred import check_strategy
from iwae_zoo.model import memory

__all__ = ["NAMES", "is_on_device"]

NAMES = ("auto", "host", "device")
# Share of a GPU's memory that the rows may take.
_SHARE = 0.25


def is_on_device(name, dataset, strategy):
    """Whether batches are made on the device.

    Args:
      name: one of `NAMES`.
      dataset: `Dataset`.
      strategy: `tf.distribute.Strategy` that the model trains under.

    Raises:
      ValueError: if that is asked for, and there are several devices, or the training examples are streamed.
    """
    if name == "device":
        check_strategy(strategy)
        dataset.check_gathered("data_on=device")
    if name != "auto":
        return name == "device"
    if dataset.is_streamed or strategy.num_replicas_in_sync > 1 or not tf.config.list_logical_devices("GPU"):
        return False
    # Bytes lie there as halves.
    size = dataset.train.nbytes * (2 if dataset.train.dtype == np.uint8 else 1)
    return size <= _SHARE * memory.of_device()
