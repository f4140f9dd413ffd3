"""Operations of graphs made with half of TensorFlow's Python, where most of the tests' time goes.

The graphs are the same, name by name (`building_test.py`). What is not plain is left to TensorFlow, and so are errors.
"""

import functools
from typing import Any, NamedTuple

from tensorflow.core.framework import attr_value_pb2, types_pb2
from tensorflow.python.client import pywrap_tf_session as c_api
from tensorflow.python.framework import dtypes, errors, op_def_library, op_def_registry, ops, tensor
from tensorflow.python.framework.func_graph import FuncGraph


class _Input(NamedTuple):
    """Input of an operation: of the type `dtype`, or the one of an attribute, which others may share."""

    name: str
    dtype: Any
    type_attr: str
    is_list: bool


class _Kind(NamedTuple):
    """What all operations of a type have in common."""

    inputs: list[_Input]
    defaults: dict[str, Any]  # Types of inputs that do not say theirs, by attribute.
    allowed: dict[str, frozenset[int]]  # Types that inputs may have, by attribute.
    attrs: list[tuple[str, str, bool]]  # Attributes that no input tells: name, type, and whether they may be left out.
    is_stateful: bool


# A call's outputs get the shapes of the function's own when it is there; TensorFlow looks for them in its body before.
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_IS_NOT_LOOKED_INTO = "_disable_call_shape_inference", attr_value_pb2.AttrValue(b=True).SerializeToString()


def install():
    """Once in a process, before anything is traced."""
    apply, create = op_def_library._apply_op_helper, FuncGraph._create_op_internal

    @functools.wraps(apply)
    def applied(op_type, name=None, **keywords):
        graph, kind = ops.get_default_graph(), _kind(op_type)
        if kind is None or type(graph)._create_op_internal is not created or not _is_plain(graph):
            return apply(op_type, name, **keywords)
        name = _unique(graph, name or op_type)
        try:
            inputs = _inputs(graph, kind, name, keywords)
            op = _operation(graph, op_type, name, inputs, _attributes(kind, keywords))
        except (KeyError, TypeError, ValueError):  # It has better words for it.
            return apply(op_type, name + "/", **keywords)
        return None, kind.is_stateful, op, op.outputs

    @functools.wraps(create)
    def created(
        graph, op_type, inputs, dtypes=None, input_types=None, name=None, attrs=None, op_def=None, compute_device=True
    ):
        if not _is_plain(graph):
            return create(graph, op_type, inputs, dtypes, input_types, name, attrs, op_def, compute_device)
        op_def, attrs = op_def or graph.op_def_for_type(op_type), attrs or {}
        own = [_captured(graph, one) for one in inputs]
        grouped = ops._reconstruct_sequence_inputs(op_def, own, attrs)
        serialized = [(attr, value.SerializeToString()) for attr, value in attrs.items()]
        name = _unique(graph, name or op_type)
        if op_type not in _CALLS or not _knows_its_shapes(graph, attrs["f"].func.name):
            return _operation(graph, op_type, name, grouped, serialized)
        op = _operation(graph, op_type, name, grouped, [*serialized, _IS_NOT_LOOKED_INTO])
        op._clear_attr(_IS_NOT_LOOKED_INTO[0])
        return op

    op_def_library._apply_op_helper = applied
    FuncGraph._create_op_internal = created


def _is_plain(graph):
    """Whether no more is said of a scope's operations than names, devices, control dependencies and gradients."""
    return not (
        graph.capture_by_value
        or graph._control_flow_context
        or graph._attr_scope_map
        or graph._op_to_kernel_label_map
        or graph._gradient_override_map
        or graph._colocation_stack
        or graph._container
    )


def _knows_its_shapes(graph, function):
    """Whether nothing about the outputs of a function could be learnt from its inputs."""
    return all(output.shape.is_fully_defined() for output in graph._get_function(function).function_type.flat_outputs)


@functools.cache
def _kind(op_type):
    """`_Kind` of a type of operations; None of one that is not plain."""
    op_def = op_def_registry.get(op_type)
    if any(i.is_ref or i.type_list_attr for i in op_def.input_arg) or any("func" in a.type for a in op_def.attr):
        return None
    told = {attr for i in op_def.input_arg for attr in (i.type_attr, i.number_attr)}
    inputs = [
        _Input(
            i.name,
            None if i.type == types_pb2.DT_INVALID else dtypes.as_dtype(i.type),
            i.type_attr,
            bool(i.number_attr),
        )
        for i in op_def.input_arg
    ]
    types = [a for a in op_def.attr if a.type == "type"]
    return _Kind(
        inputs,
        {a.name: dtypes.as_dtype(a.default_value.type) for a in types if a.HasField("default_value")},
        {a.name: frozenset(a.allowed_values.list.type) for a in types if a.HasField("allowed_values")},
        [(a.name, a.type, a.HasField("default_value")) for a in op_def.attr if a.name not in told],
        op_def.is_stateful,
    )


def _unique(graph, name):
    """The name of an operation that is to be called so; one that ends in a slash is a scope, made for it."""
    return name[:-1] if name[-1] == "/" else graph.unique_name(name)


def _inputs(graph, kind, name, keywords):
    """The inputs of an operation of that name, tensors of the graph or lists of them."""
    known, inputs = {}, []
    before, graph._name_stack = graph._name_stack, name  # Where constants are that stand for Python's values.
    try:
        for i in kind.inputs:
            value = keywords[i.name] if i.name in keywords else keywords[i.name + "_"]
            dtype = i.dtype or known.get(i.type_attr)
            inputs.append((_tensors if i.is_list else _tensor)(value, dtype, i, kind))
            known[i.type_attr] = (inputs[-1][0] if i.is_list else inputs[-1]).dtype
        return [
            [_captured(graph, one) for one in value] if i.is_list else _captured(graph, value)
            for i, value in zip(kind.inputs, inputs, strict=True)
        ]
    finally:
        graph._name_stack = before


def _tensor(value, dtype, i, kind):
    """An input as a tensor, of the given type or of the one that suits it."""
    if isinstance(value, ops.SymbolicTensor):
        return value
    if dtype is None and i.type_attr in kind.defaults:
        if i.type_attr in kind.allowed:
            natural = ops.convert_to_tensor(value, name=i.name)
            if natural.dtype.as_datatype_enum in kind.allowed[i.type_attr]:
                return natural
        return ops.convert_to_tensor(value, name=i.name, preferred_dtype=kind.defaults[i.type_attr])
    return ops.convert_to_tensor(value, dtype, name=i.name)


def _tensors(values, dtype, i, kind):
    """The tensors of an input that is a list."""
    if not isinstance(values, (list, tuple)) or not values:
        raise TypeError
    dtype = dtype or next((v.dtype for v in values if isinstance(v, tensor.Tensor)), None)
    preferred = kind.defaults.get(i.type_attr) if dtype is None else None
    return ops.internal_convert_n_to_tensor(values, dtype, i.name, preferred_dtype=preferred)


def _attributes(kind, keywords):
    """The attributes that are not left out: names and what TensorFlow's C functions take."""
    attrs = []
    for name, type_, is_optional in kind.attrs:
        value = keywords[name] if name in keywords else keywords[name + "_"]
        if value is not None or not is_optional:
            # Lists cannot be looked up, and 0.0 would be found for -0.0.
            serialized = _serialized if isinstance(value, (list, float)) else _kept
            attrs.append((name, serialized(name, type_, value)))
    return attrs


def _serialized(name, type_, value):
    return op_def_library.value_to_attr_value(value, type_, name).SerializeToString()


_kept = functools.lru_cache(None, typed=True)(_serialized)


def _operation(graph, op_type, name, inputs, attrs):
    """Makes an operation of a graph's own tensors and lists of them."""
    flat = []
    with graph._c_graph.get() as c_graph:
        description = c_api.TF_NewOperation(c_graph, op_type, name)
    for value in inputs:
        if isinstance(value, list):
            c_api.TF_AddInputList(description, [one._as_tf_output() for one in value])
            flat += value
        else:
            c_api.TF_AddInput(description, value._as_tf_output())
            flat.append(value)
    controllers = graph._control_dependencies_stack
    if controllers:
        for control in graph._control_dependencies_for_inputs({one.op for one in flat}):
            c_api.TF_AddControlInput(description, control._c_op)
    for attr, serialized in attrs:
        c_api.TF_SetAttrValueProto(description, attr, serialized)
    try:
        c_op = c_api.TF_FinishOperation(description)
    except errors.InvalidArgumentError as error:
        raise ValueError(error.message) from None
    op = ops.Operation._from_c_op(c_op, graph)
    op._inputs_val = tuple(flat)  # Asked for once at the least.
    if controllers:
        graph._record_op_seen_by_control_dependencies(op)
    op._gradient_function = graph._gradient_function_map.get(op_type)
    graph._apply_device_functions(op)
    op._colocation_code_locations = {}
    return op


def _captured(graph, value):
    return value if getattr(value, "graph", None) is graph else graph.capture(value)
