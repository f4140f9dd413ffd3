"""TensorFlow as most tests want it: graphs run as they were traced, with nothing kept or tuned for nobody."""

import contextvars
import functools
import gc
import sys
import typing

import numpy as np


def settle(optimizes=False, keeps_lines=False):
    """Once in a process, before anything is traced.

    Args:
      optimizes: bool, as in `optimize`.
      keeps_lines: bool, whether a graph keeps the Python lines that made each operation, for errors to show.
    """
    import building
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.data.ops import dataset_ops
    from tensorflow.python.eager import context
    from tensorflow.python.framework import auto_control_deps, dtypes, ops
    from tensorflow.python.ops import gen_resource_variable_ops

    if not (optimizes or keeps_lines):
        building.install()
    # Whether a value is a tensor is asked of a protocol, whose attributes Python 3.11 gathers anew each time.
    if sys.version_info < (3, 12):
        for name in ("_get_protocol_attrs", "_is_callable_members_only"):
            setattr(typing, name, functools.cache(getattr(typing, name)))
    # Each operation is asked for the resources that it reads and writes, and few have any.
    handles = {dtypes.resource, dtypes.variant}
    touched = auto_control_deps._get_resource_inputs
    auto_control_deps._get_resource_inputs = lambda op: (
        touched(op) if any(tensor.dtype in handles for tensor in op.inputs) else ()
    )
    # A variable of another name would be an operation that was never run.
    handle = gen_resource_variable_ops.var_handle_op
    gen_resource_variable_ops.var_handle_op = lambda **options: handle(**{**options, "debug_name": ""})
    # A third of all operations are constants, and most of these are there already.
    ops._create_graph_constant = _shared(ops._create_graph_constant)
    # tf.data measures what it could do better in a thread that sleeps up to a minute, and may be waited for at the end;
    # and looks for better pipelines, which takes longer than a few batches.
    dataset_ops.DatasetV2._apply_debug_options = _untuned
    # Most graphs run once: nobody but Grappler folds constants, whatever `optimize` is told later.
    if not optimizes:
        context.context()._config = config_pb2.ConfigProto()
        context.context()._config.graph_options.optimizer_options.opt_level = config_pb2.OptimizerOptions.L0
    optimize(optimizes)
    # What is imported stays, and tracing makes objects that stay too: looking for it took a tenth of all time.
    gc.freeze()
    gc.set_threshold(500_000, 5, 20)


def optimize(optimizes):
    """Whether Grappler optimises graphs and XLA compiles heads, as they do for users: a quarter of all time."""
    import tensorflow as tf
    from tensorflow.core.config import flags

    from iwae_zoo.distributions import fusion

    # A function's body loses what nobody needs before it is put in place, and is not searched for what a TPU could run.
    for name in ("enable_function_pruning_before_inlining", "enable_skip_encapsulation_for_non_tpu_graphs"):
        getattr(flags.config(), name).reset(not optimizes)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not optimizes})
    fusion._compiling = contextvars.ContextVar("compiling", default=optimizes)


def _shared(create):
    """Whole numbers (of axes, shapes and slices) and single numbers are constants of a graph once.

    Other floats are not: a tape may watch them.
    """
    from tensorflow.core.framework import attr_value_pb2
    from tensorflow.python.framework import ops, tensor_util

    kept = {}  # What is said of a constant, for the next graph that has it.

    def constant(value, dtype, shape, name, verify_shape, allow_broadcast):
        known = _key(value) if shape is None else None
        if known is None:
            return create(value, dtype, shape, name, verify_shape, allow_broadcast)
        graph, key = ops.get_default_graph(), (known, dtype)
        if (constants := getattr(graph, "shared_constants", None)) is None:
            constants = graph.shared_constants = {}
        if key not in constants:
            if key not in kept:
                proto = tensor_util.make_tensor_proto(value, dtype)
                kept[key] = {
                    "value": attr_value_pb2.AttrValue(tensor=proto),
                    "dtype": attr_value_pb2.AttrValue(type=proto.dtype),
                }
            op = graph._create_op_internal("Const", [], [kept[key]["dtype"].type], attrs=kept[key], name=name)
            constants[key] = op.outputs[0]
        return constants[key]

    return constant


def _key(value):
    """What tells a small constant from others; None of one that is not shared."""
    if type(value) in (bool, int, float):
        return repr(value)
    if type(value) in (list, tuple):
        return repr(value) if len(value) <= 8 and all(type(v) is int for v in value) else None
    if isinstance(value, np.ndarray | np.generic) and value.size <= 8 and value.dtype.kind in "biu":
        return value.dtype.str, value.shape, value.tobytes()
    return None


def _untuned(dataset):
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)
