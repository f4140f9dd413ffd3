"""Where a model trains: on one device, on several, or on several machines.

    none            one device
    mirrored        every GPU of this machine, or the logical devices that `devices` asks for
    multi_worker    every machine of the cluster that the environment variable TF_CONFIG describes
    auto            the last where TF_CONFIG names several workers, else the second where there are several devices

A model is built in the scope of its strategy, and `fit`, `evaluate` and `likelihood.estimate_dataset` follow it.
"""

import contextlib
import json
import os
import re

import tensorflow as tf

from iwae_zoo._checks import look_up
from iwae_zoo.training.devices import use

__all__ = ["WorkerLost", "cluster_size", "get", "is_chief", "mirrored", "names", "wait_for_all", "watching"]

_NAMES = ("auto", "none", "mirrored", "multi_worker")
_EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'

# How TensorFlow reports a worker that does not answer, or that has been started again.
_LOSSES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class WorkerLost(RuntimeError):
    """Another worker of the cluster is gone; this process cannot go on without it, but a new one can."""


def names():
    """Every name that `get` takes."""
    return _NAMES


def get(name="auto", devices=None):
    """Returns a strategy by name; call it before anything else of TensorFlow runs.

    Args:
      name: one of `names()`.
      devices: optional str, kind and number of devices of this machine, as in `training.devices`: "gpu:2"; for trying
        things out "gpu:1x2", two logical devices on one card, or "cpu:4", which share the cores.

    Returns:
      `tf.distribute.Strategy`.

    Raises:
      ValueError: on an unknown name, devices that are not there, or a TF_CONFIG that is missing or cannot be used.
      RuntimeError: if TensorFlow has run already, and the devices or the cluster can no longer be set up; or if the
        memory of a card that is to be shared cannot be read.
    """
    look_up(_NAMES, name, "strategy")
    workers = cluster_size()
    if name == "multi_worker" and not workers:
        raise ValueError(f"The strategy multi_worker needs the environment variable TF_CONFIG, such as {_EXAMPLE}.")
    used = use(devices)
    if name == "auto":
        name = "multi_worker" if workers > 1 else "mirrored" if used.number > 1 else "none"
    if name == "multi_worker":
        if used.shared:
            raise ValueError(
                f"A worker has no logical devices: received devices={devices!r} with the strategy {name}. Start a "
                "worker for each."
            )
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise RuntimeError(
                f"This worker cannot join the cluster of TF_CONFIG: {error.message}. Is its address this machine's, "
                "and its port free?"
            ) from error
    if name == "mirrored":
        return mirrored(used)
    return tf.distribute.get_strategy()


def mirrored(used):
    """The strategy over devices of this machine that are set up.

    Args:
      used: `training.devices.Devices`.
    """
    # Logical devices share their memory. TensorFlow's default would use operations that fail for good after one error,
    # or, on one card, NCCL, which refuses it.
    exchange = tf.distribute.ReductionToOneDevice() if used.shared or used.kind == "CPU" else None
    return tf.distribute.MirroredStrategy(used.names, cross_device_ops=exchange)


def is_chief(strategy):
    """Whether this process is the one that writes files and prints."""
    resolver = strategy.cluster_resolver
    return (
        resolver is None
        or resolver.task_type in (None, "", "chief")
        or (resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs)
    )


@contextlib.contextmanager
def watching(strategy):
    """Inside, the loss of another worker is a `WorkerLost`."""
    try:
        yield
    except _LOSSES as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        raise WorkerLost("Another worker of the cluster is gone. Start all of them again.") from error


def wait_for_all(strategy):
    """Returns when every worker of the cluster has come this far."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(0.0)), axis=None)


def cluster_size():
    """Number of workers that TF_CONFIG names; 0 without it.

    Raises:
      ValueError: if it cannot be used; the message has an example.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0
    try:
        config = json.loads(text)
        jobs, task = dict(config["cluster"]), config["task"]
        own, index = jobs[task["type"]], int(task["index"])
        addresses = [address for job in jobs.values() for address in job]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"TF_CONFIG cannot be used ({error!r}): received {text!r}. It looks like {_EXAMPLE}."
        ) from error
    faults = {
        "may name the jobs chief and worker only": not set(jobs) <= {"chief", "worker"},
        "must have a list of host:port for each job": not all(isinstance(job, list) for job in jobs.values())
        or not all(isinstance(address, str) and re.fullmatch(r".+:\d+", address) for address in addresses),
        "must have another address for each worker": len({*map(str, addresses)}) < len(addresses),
        f"must have an index from 0 to {len(own) - 1}": not 0 <= index < len(own),
    }
    for fault, found in faults.items():
        if found:
            raise ValueError(f"TF_CONFIG {fault}: received {text!r}. It looks like {_EXAMPLE}.")
    return len(addresses)
