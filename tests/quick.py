"""TensorFlow as most tests want it: graphs run as they were traced, with nothing kept or tuned for nobody."""

import contextvars
import functools
import gc
import typing


def settle(optimizes=False, keeps_lines=False):
    """Once in a process, before anything is traced.

    Args:
      optimizes: bool, as in `optimize`.
      keeps_lines: bool, whether a graph keeps the Python lines that made each operation, for errors to show.
    """
    from tensorflow.python.data.ops import dataset_ops
    from tensorflow.python.framework import auto_control_deps, dtypes, ops

    # A tenth of the time of tracing.
    if not keeps_lines:
        ops._create_c_op = functools.partial(ops._create_c_op, extract_traceback=False)
    # Whether a value is a tensor is asked of a protocol, whose attributes Python 3.11 gathers anew each time.
    typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)
    # Each operation is asked for the resources that it reads and writes, and few have any.
    handles = {dtypes.resource, dtypes.variant}
    touched = auto_control_deps._get_resource_inputs
    auto_control_deps._get_resource_inputs = lambda op: (
        touched(op) if any(tensor.dtype in handles for tensor in op.inputs) else ()
    )
    # tf.data measures what it could do better in a thread that sleeps up to a minute, and may be waited for at the end.
    dataset_ops.DatasetV2._apply_debug_options = _untuned
    optimize(optimizes)
    # What is imported stays, and tracing makes objects that stay too: looking for it took a tenth of all time.
    gc.freeze()
    gc.set_threshold(500_000, 5, 20)


def optimize(optimizes):
    """Whether Grappler optimises graphs and XLA compiles heads, as they do for users: a quarter of all time."""
    import tensorflow as tf

    from iwae_zoo.distributions import fusion

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not optimizes})
    fusion._compiling = contextvars.ContextVar("compiling", default=optimizes)


def _untuned(dataset):
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
