"""A step that XLA compiles copies nothing from a card to the host, as TensorFlow's own table of kernels has it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from card_kernels import kernel
from tensorflow.python.framework import op_def_registry
from tensorflow.python.ops import handle_data_util

from iwae_zoo import data, objectives, presets

pytestmark = pytest.mark.skipif(not tf.test.is_built_with_cuda(), reason="TensorFlow was built without GPUs.")

# Copies a flag to the host by itself, whatever its inputs and outputs are.
CHECKS = ("CheckNumerics", "CheckNumericsV2")


def copies_to_the_host(graph):
    """Names of the operations of a step on a card that wait on the host for what the card computes, or cannot run."""
    in_host_memory, found = set(), []
    for op in graph.get_operations():
        if op.type == "Placeholder":  # Variables are where their type can be; all else comes from the host.
            if op.outputs[0].dtype != tf.resource or not _is_of_a_card(op.outputs[0]):
                in_host_memory.add(op.outputs[0].name)
            continue
        variables = [tensor for tensor in op.inputs if tensor.dtype == tf.resource]
        beside_variables = any(tensor.name in in_host_memory for tensor in variables)
        if op.type in ("PartitionedCall", "StatefulPartitionedCall") and op.get_attr("_XlaMustCompile"):
            found += [op.name] * beside_variables  # Nor could it run; its inputs and outputs are the card's.
            continue
        of_card = None if "CPU" in op.device or beside_variables else kernel(op.type, op.get_attr)
        inputs, outputs = (
            [of_card is None or name in of_card.host_memory_arg for name in _arguments(op, which)]
            for which in ("input_arg", "output_arg")
        )
        for tensor, is_hosts in zip(op.inputs, inputs, strict=True):
            is_there = tensor.dtype == tf.resource or tensor.op.type == "Const" or tensor.name in in_host_memory
            found += [op.name] * (is_hosts and not is_there)
        in_host_memory |= {tensor.name for tensor, is_hosts in zip(op.outputs, outputs, strict=True) if is_hosts}
        found += [op.name] * (op.type in CHECKS)
    return found


def _is_of_a_card(handle):
    """Whether a variable can be there."""
    dtype = handle_data_util.get_resource_handle_data(handle).shape_and_type[0].dtype
    return kernel("VarHandleOp", {"dtype": dtype}.get) is not None


def _arguments(op, which):
    """Of which argument each input or output is a part."""
    names = []
    for argument in getattr(op_def_registry.get(op.type), which):
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        else:
            count = len(op.get_attr(argument.type_list_attr)) if argument.type_list_attr else 1
        names += [argument.name] * count
    return names


def built(objective, **options):
    model = presets.build("plane", data_shape=(3, 3), objective=objectives.get(objective, m=2, k=4))
    model.compile(keras.optimizers.Adam(clipnorm=1.0, use_ema=True), **options)
    return model


def copies_of_step(model, data):
    return copies_to_the_host(tf.function(model.train_step, autograph=False).get_concrete_function(data).graph)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["piwae", "rws"])
@pytest.mark.parametrize("options", [{}, {"particle_chunk": 3}, {"backward_particles": 2}])
def test_a_compiled_step_copies_nothing(objective, options):
    batch = tf.TensorSpec([4, 3, 3])
    assert copies_of_step(built(objective, jit_compile=True, **options), batch) == []


def test_nor_where_its_batch_is_made_on_the_card():
    x = np.random.default_rng(0).integers(0, 256, (20, 3, 3, 1)).astype("uint8")
    plans = data.Dataset("toy", x, x, x, "binary").training_batches(4, 0, on_device=True)
    model = presets.build("plane", data_shape=(3, 3, 1))
    model.compile(jit_compile=True)
    model._make_x = plans.make
    assert copies_of_step(model, plans.plans.element_spec) == []


def test_what_is_not_compiled_copies():
    """The number of the step, and the check of the log weights."""
    copies = copies_of_step(built("piwae", jit_compile=False), tf.TensorSpec([4, 3, 3]))
    assert any("CheckNumerics" in name for name in copies)
    assert any("Cast" in name for name in copies)
