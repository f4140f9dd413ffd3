"""How much memory particles take, how much a device has, and what is said where it was not enough."""

import collections
import contextlib
import ctypes
import errno
import pathlib

import psutil
import tensorflow as tf

from iwae_zoo._tracing import Networks, per_model
from iwae_zoo.distributions import fusion
from iwae_zoo.model import particles

__all__ = [
    "available",
    "bytes_per_particle",
    "card_megabytes",
    "enough",
    "enough_to_train",
    "fitting_chunk",
    "of_device",
]

# Share of the free memory that particles are given: the rest is for weights, libraries, and what graphs do not show.
_SHARE = 0.5
# Of a trace, a number that no other size is a multiple of.
_PARTICLES = 1009
# What the arguments of functions are called in the programs' flags, where that is another name.
_FLAGS = {"chunk_size": "particle_chunk"}
# What Linux says of the container that a process is in.
_CONTAINER = pathlib.Path("/sys/fs/cgroup")
# What TensorFlow says where a disk is full: the same error.
_OF_DISK = ("No space left", "quota exceeded")
# They return the memory that they are given.
_ALIASES = {
    "EnsureShape",
    "ExpandDims",
    "Identity",
    "IdentityN",
    "PreventGradient",
    "Reshape",
    "Squeeze",
    "StopGradient",
}


def bytes_per_particle(model, backward=False):
    """Most bytes that a particle takes at once while it is weighed, as the graph of the networks has it.

    What element-wise operations save by writing over their input is not taken off, and what XLA or a library needs for
    itself is not added.

    Args:
      model: `ImportanceWeightedAutoencoder`, built.
      backward: whether the decoder is gone back through, as in training.

    Returns:
      int.
    """
    return _bytes_per_particle(model, backward, fusion.is_portable())


@per_model
def _bytes_per_particle(model, backward, portable):
    del portable  # Traced where it is asked for.
    networks = Networks.of(model)
    variables = [variable.value for variable in model.decoder_variables]

    def weigh(x):
        args = (networks.encoder, networks.decoder, networks.prior, x)
        if not backward:
            return particles.log_weights(*args, m=1, k=_PARTICLES, seed=[0, 0])
        z = particles.draw(networks.encoder.posterior(x), 1, _PARTICLES, [0, 0], reparameterized=False)
        with tf.GradientTape() as tape:
            tape.watch(z)
            log_joint = particles.log_joint(networks.decoder, networks.prior, x, z)
        return tape.gradient(log_joint, [*variables, z])

    graph = tf.function(weigh, autograph=False).get_concrete_function(tf.TensorSpec([1, *model.data_shape])).graph
    return -(-_peak(graph) // _PARTICLES)


def _peak(graph):
    """Most bytes of tensors with an axis of the particles that are needed at once, if operations run in order."""
    operations = graph.get_operations()
    roots: dict = {}  # Of a tensor, the one whose memory it has.
    last: dict = {}
    for number, operation in enumerate(operations):
        for tensor in operation.inputs:
            last[roots.get(tensor.ref(), tensor.ref())] = number
        if operation.type in _ALIASES:
            for given, returned in zip(operation.inputs, operation.outputs, strict=False):
                roots[returned.ref()] = roots.get(given.ref(), given.ref())
    needed = most = 0
    ends: collections.Counter = collections.Counter()
    for number, operation in enumerate(operations):
        for tensor in operation.outputs:
            elements = tensor.shape.num_elements()
            if tensor.ref() not in roots and elements and elements % _PARTICLES == 0:
                needed += elements * tensor.dtype.size
                ends[last.get(tensor.ref(), number)] += elements * tensor.dtype.size
        most = max(most, needed)
        needed -= ends[number]
    return most


def of_device():
    """Bytes of memory of the device that computes: of a GPU, or a logical one's share of it, or of the machine."""
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return _of_machine("total", "memory.max")
    physical = tf.config.list_physical_devices("GPU")[0]
    parts = tf.config.get_logical_device_configuration(physical) or [None]
    limit = getattr(parts[0], "memory_limit", None)
    return int((limit or card_megabytes(0)) * 2**20)


def available():
    """Bytes of memory of the device that computes that are free: of a GPU, those that TensorFlow has not given away."""
    if tf.config.list_logical_devices("GPU"):
        return max(of_device() - tf.config.experimental.get_memory_info("GPU:0")["current"], 0)
    return _of_machine("available", "memory.max", "memory.current")


def fitting_chunk(rows, of_particle, most):
    """How many particles of each row there is memory for at once.

    Args:
      rows: int, rows that are computed at once.
      of_particle: int, `bytes_per_particle`.
      most: int, number of particles that is enough.

    Returns:
      int from 1 to `most`.
    """
    return max(1, min(most, int(_SHARE * available()) // (rows * of_particle)))


@contextlib.contextmanager
def enough(
    model,
    rows,
    chunk,
    *,
    name="particle_chunk",
    kind="particle",
    copies=1,
    backward=False,
    least=1,
    fewer_rows="fewer rows at once",
):
    """Inside, TensorFlow's error of a device that is out of memory becomes one that says what would fit.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      rows: int, rows that are computed at once.
      chunk: int, particles of each of them.
      name: str, what the user knows the number of particles by.
      kind: str, what they are: particles, or chains.
      copies: int, how many times `bytes_per_particle` each takes.
      backward: as in `bytes_per_particle`.
      least: int, the fewest that can be chosen, or below which no less memory is taken.
      fewer_rows: str, what there is to do where these are too many.

    Raises:
      MemoryError: instead of `tf.errors.ResourceExhaustedError`; any other error passes.
      OSError: instead of one that is of a disk.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        if any(text in error.message for text in _OF_DISK):
            raise OSError(errno.ENOSPC, error.message.partition("\n")[0]) from error
        of_particle = copies * bytes_per_particle(model, backward)
        taken = (
            f"The device is out of memory: {rows} row{'s' * (rows > 1)} with {chunk} {kind}{'s' * (chunk > 1)} each "
            f"take about {_mebibytes(rows * max(chunk, least) * of_particle)} MiB at once"
        )
        try:
            free, size = available(), of_device()
            fits = fitting_chunk(rows, of_particle, max(chunk // 2, least))
        except RuntimeError as unknown:  # How much there is, which halving does not need to know.
            smaller = f", or a smaller {name}" if chunk > least else ""
            raise MemoryError(f"{taken}: take {fewer_rows}{smaller}. {unknown}") from None
        flag = f" (--{_FLAGS[name]}={fits})" if name in _FLAGS else ""
        would_fit = least <= fits < chunk and rows * fits * of_particle <= free
        remedy = f"{name}={fits}{flag} would fit" if would_fit else f"take {fewer_rows}"
        raise MemoryError(f"{taken}, and {_mebibytes(free)} of {_mebibytes(size)} MiB are free: {remedy}.") from None


def enough_to_train(model, batch_size, most):
    """`enough` for the steps of a compiled model.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      batch_size: int, rows of a step, on all replicas together.
      most: int, particles of a row in a step.
    """
    rows = -(-batch_size // model.distribute_strategy.num_replicas_in_sync)
    chunk = min(model.particle_chunk or most, most)
    return enough(model, rows, chunk, backward=True, fewer_rows="a smaller batch_size")


def card_megabytes(index):
    """Memory of a card in MiB; TensorFlow says it only after setting the card up, when it can be divided no more.

    Args:
      index: int, as CUDA numbers the cards that CUDA_VISIBLE_DEVICES leaves.

    Raises:
      RuntimeError: if the driver does not say.
    """
    device, size = ctypes.c_int(), ctypes.c_size_t()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), index)
            or driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        )
    except (OSError, AttributeError) as error:
        raise RuntimeError(f"CUDA's driver does not say how much memory a card has: {error}.") from error
    if failed:
        raise RuntimeError(f"CUDA's driver does not say how much memory card {index} has: error {failed}.")
    return size.value / 2**20


def _of_machine(field, limit, used=None):
    """Bytes that psutil has in a field, or what the limit of a container leaves if that is less."""
    size = getattr(psutil.virtual_memory(), field)
    try:
        most = int((_CONTAINER / limit).read_text())
        size = min(size, most - (int((_CONTAINER / used).read_text()) - _of_files() if used else 0))
    except (OSError, ValueError):  # No container, or one without a limit.
        pass
    return max(size, 0)


def _of_files():
    """Bytes of what a container has used that are copies of files, which it gives away when others need them."""
    try:
        lines = (_CONTAINER / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _mebibytes(size):
    return f"{size / 2**20:.0f}"
