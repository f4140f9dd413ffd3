"""Several devices, where there is one."""

from iwae_zoo import strategies
from iwae_zoo.training import devices


def mirrored(replicas):
    """The strategy over the first logical devices of `conftest`."""
    return strategies.mirrored(devices.Devices("CPU", replicas, shared=True))
