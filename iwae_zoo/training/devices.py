"""Which devices of this machine a process uses, and as how many: written KIND:COUNT or KIND:COUNTxLOGICAL.

gpu:2      two cards
gpu:1x2    one card as two logical devices, each with its share of the memory: `mirrored` on a machine with one
cpu:4      four logical devices that share the processor's cores; the same as cpu:1x4
"""

import re
from typing import NamedTuple

import tensorflow as tf

from iwae_zoo.model import memory

__all__ = ["Devices", "use"]

# Share of a card's memory for its logical devices; the rest is for what TensorFlow and CUDA keep besides.
_SHARE = 0.9
_EXAMPLES = "such as 'gpu:2', 'gpu:1x2' or 'cpu:4'"


class Devices(NamedTuple):
    """Devices as TensorFlow numbers them.

    Attributes:
      kind: "CPU" or "GPU".
      number: int, how many, logical ones counted one by one.
      shared: bool, whether some of them are one piece of hardware.
    """

    kind: str
    number: int
    shared: bool

    @property
    def names(self):
        """list of str, such as "GPU:0"."""
        return [f"{self.kind}:{i}" for i in range(self.number)]


def use(devices=None):
    """Makes only these devices visible; call it before anything else of TensorFlow runs.

    Args:
      devices: str, KIND:COUNT or KIND:COUNTxLOGICAL; None for all GPUs, or the CPU where there is none.

    Returns:
      `Devices`.

    Raises:
      ValueError: if it is written otherwise, or they are not there.
      RuntimeError: if TensorFlow has run already, or the memory of a card that is to be shared cannot be read.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if devices is None:
        return Devices("GPU", len(gpus), shared=False) if gpus else Devices("CPU", 1, shared=False)
    match = re.fullmatch(r"(cpu|gpu)(?::(\d+)(?:x(\d+))?)?", devices.lower())
    numbers = [int(number or 1) for number in match.groups()[1:]] if match else [0]
    if not match or 0 in numbers:
        raise ValueError(f"devices must be a kind and a number, {_EXAMPLES}: received {devices!r}.")
    kind, (count, logical) = match[1].upper(), numbers
    if kind == "GPU" and count > len(gpus):
        raise ValueError(f"There are {len(gpus)} GPUs on this machine: received devices={devices!r}.")
    split = logical > 1 or (kind == "CPU" and count > 1)
    limits = [int(_SHARE * memory.card_megabytes(i) / logical) for i in range(count)] if kind == "GPU" and split else []
    try:
        tf.config.set_visible_devices(gpus[:count] if kind == "GPU" else [], "GPU")
        for gpu, limit in zip(gpus, limits, strict=False):
            _divide(gpu, logical, limit)
        if kind == "CPU":
            _divide(tf.config.list_physical_devices("CPU")[0], count * logical)
    except RuntimeError as error:
        raise RuntimeError("Devices can be chosen only before anything else of TensorFlow runs.") from error
    return Devices(kind, count * logical, split)


def _divide(device, count, memory_limit=None):
    parts = [tf.config.LogicalDeviceConfiguration(memory_limit)] * count
    tf.config.set_logical_device_configuration(device, parts)
