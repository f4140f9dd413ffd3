"""TF Serving's JSON forms of a predict request and response, to and from numpy arrays.

Rows, `{"instances": [row, ...]}` -> `{"predictions": [row, ...]}`, or columns, `{"inputs": tensors}` ->
`{"outputs": tensors}`. JSON says nothing of dtypes: they are the signature's. Floats are rounded, as TF Serving does;
no other number is bent to fit one.
"""

import base64
import itertools
import json
import math

import numpy as np

from iwae_zoo_serving.errors import ServingError, grpc, invalid

__all__ = [
    "DTYPES",
    "as_json",
    "cast",
    "dumps",
    "format_predictions",
    "loads",
    "parse_inputs",
    "parse_tensor",
    "shortest",
]

_INTEGERS = ("INT8", "UINT8", "INT16", "INT32", "UINT32", "INT64", "UINT64")
DTYPES = {f"DT_{name}": np.dtype(name.lower()) for name in (*_INTEGERS, "BOOL")}
DTYPES |= {"DT_FLOAT": np.dtype("float32"), "DT_DOUBLE": np.dtype("float64"), "DT_STRING": np.dtype(object)}
_LARGEST_RANK = 64  # numpy's
_POWERS = np.array([float(10**power) for power in range(23)])


class _Token(float):
    """`NaN`, `Infinity` or `-Infinity`, written so: an infinite plain float was a number too large for a double."""


_ACCEPTED: dict[str, set[type]] = {"f": {float, int, _Token}, "i": {int}, "u": {int}, "b": {bool}, "O": {str, dict}}


def loads(body):
    """The object in a request's body: JSON in bytes, with TF Serving's bare `NaN`, `Infinity` and `-Infinity`."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body, parse_constant=_Token)
    except RecursionError:
        raise invalid("JSON Parse error: nested too deeply") from None
    except ValueError as error:  # Also of text that is not UTF-8, and of integers with thousands of digits.
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def dumps(value):
    """JSON text, with bare `NaN` and infinities."""
    return json.dumps(value, separators=(",", ":"))


def parse_inputs(document, dtypes):
    """The tensors of a predict request.

    Args:
      document: dict, as `loads` returns it.
      dtypes: dict of each input's name in the signature and its key in `DTYPES`.

    Returns:
      The inputs, as a dict of name and array, and whether they came in rows.

    Raises:
      ServingError: if they do not fit the signature.
    """
    if ("instances" in document) == ("inputs" in document):
        found = "Got both, expecting only one" if "inputs" in document else "Missing"
        raise invalid(f"{found} 'inputs' or 'instances' key")
    known = ", ".join(sorted(dtypes))
    rows = "instances" in document
    value = document["instances" if rows else "inputs"]
    if rows and (not isinstance(value, list) or not value):
        raise invalid("Expecting 'instances' to be a list with at least one row")
    named = _is_named(value[0] if rows else value)
    if named:
        for index, item in enumerate(value if rows else [value]):
            if not _is_named(item):
                raise invalid(f"Expecting object but got list at item {index} of input list")
            where = f"element {index} of 'instances' list" if rows else "'inputs' object"
            if missing := sorted(dtypes.keys() - item.keys()):
                raise invalid(f"Missing named input: {', '.join(missing)} in {where}. It must have keys: {known}")
            if rows and (unknown := sorted(item.keys() - dtypes.keys())):  # Of columns TF Serving takes what it knows.
                raise invalid(f"Unknown named input: {', '.join(unknown)} in {where}. It must only have keys: {known}")
        columns = {name: [row[name] for row in value] if rows else value[name] for name in dtypes}
    elif len(dtypes) == 1:
        columns = dict.fromkeys(dtypes, value)
    else:
        raise invalid(f"Got a plain value or list, but the signature has several inputs: expecting objects of {known}")
    elements = {name: (f" key: {name}" if named else "") if rows else None for name in columns}
    return {name: parse_tensor(name, column, dtypes[name], elements[name]) for name, column in columns.items()}, rows


def parse_tensor(name, value, dtype_name, element=None):
    """The array in nested lists, as `loads` returns them.

    Args:
      name: str, for messages.
      value: the nested lists.
      dtype_name: a key of `DTYPES`.
      element: of a list of rows, which messages then count, str that follows a row's number there; None of others.

    Raises:
      ServingError: if the lists are ragged, or hold what the dtype cannot.
    """
    dtype = DTYPES.get(dtype_name)
    if dtype is None:
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"'{name}': {dtype_name} has no JSON form, use gRPC")
    expected = dtype_name.removeprefix("DT_").lower()
    # Level by level, and each level by functions in C: a leaf at a time costs more than a small model does.
    shape: list = []
    leaves, kinds = [value], {type(value)}
    while list in kinds:
        sizes = {len(leaf) if isinstance(leaf, list) else None for leaf in leaves}
        if len(shape) == _LARGEST_RANK:
            raise invalid(f"'{name}' is nested too deeply after dimensions {shape[:3]}")
        if len(sizes) != 1:
            raise invalid(_ragged(value, element))
        shape += sizes
        leaves = list(itertools.chain.from_iterable(leaves))
        kinds = set(map(type, leaves))
    accepted = _ACCEPTED[dtype.kind]
    if not kinds <= accepted:
        fault = next(leaf for leaf in leaves if type(leaf) not in accepted)
        raise invalid(f"'{name}': JSON Value: {_shown(fault)} is not of expected type: {expected}")
    if dtype.kind == "O":
        array = np.empty(len(leaves), object)
        array[:] = [_to_bytes(name, leaf) for leaf in leaves]
    elif (fault := _first_unfit(leaves, dtype)) is not None:
        shown = _shown(fault)
        raise invalid(f"'{name}': Cannot convert JSON value: {shown} to {expected} without loss of precision")
    elif dtype.kind == "f":
        array = _rounded(leaves, dtype)
    else:
        array = np.array(leaves, dtype)
    return array.reshape(shape)


def format_predictions(outputs, rows):
    """The body of a predict response: a dict of name and array, as one entry per row or as one per output."""
    if rows and (len(sizes := {array.shape[:1] for array in outputs.values()}) != 1 or () in sizes):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise invalid(f"outputs have inconsistent batch size, ask for columns ('inputs') instead of rows: {shapes}")
    values = {name: _to_json(name, array) for name, array in outputs.items()}
    if len(values) == 1:
        (answer,) = values.values()
    else:
        answer = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)] if rows else values
    return dumps({"predictions" if rows else "outputs": answer})


def shortest(array):
    """Nested lists of Python numbers; a float32 is 0.1 if that reads back as the same float32, not 0.10000000149."""
    if array.dtype != np.float32:
        return array.tolist()
    values = array.astype(np.float64)
    size = np.abs(values)
    # numpy's text is right but slow. Rounding is as right where each power of ten that it needs is exact.
    common = (size >= 1e-13) & (size < 1e6)
    best = exact = values[common]
    power = np.floor(np.log10(size[common])).astype(int)
    for digits in (9, 8, 7, 6):
        scale = _POWERS[digits - 1 - power]
        rounded = np.rint(exact * scale) / scale
        best = np.where(rounded.astype(np.float32) == array[common], rounded, best)
    values[common] = best
    rare = np.isfinite(values) & (size > 0) & ~common
    values[rare] = array[rare].astype("U").astype(np.float64)
    return values.tolist()


def cast(name, values, dtype):
    """An array of what an input of the signature takes, by its key in `DTYPES`; numbers are rounded to floats alone."""
    values = np.asarray(values)
    with np.errstate(invalid="ignore"):  # Of NaN there is no integer.
        found = values.astype(DTYPES.get(dtype, values.dtype))
    if found.dtype.kind in "iub" and values.dtype.kind in "iubf" and (found != values).any():
        raise invalid(f"input '{name}' is of {found.dtype}: received {values[found != values][0]}")
    return found


def as_json(array):
    """Nested lists of what JSON has, of an array that is an input; bytes are base64."""
    if array.dtype.kind != "O":
        return shortest(array)
    return _with_leaves(lambda leaf: _to_base64(leaf) if isinstance(leaf, bytes) else leaf, array)


def _first_unfit(leaves, dtype):
    """A number that an integer dtype cannot hold."""
    if dtype.kind not in "iu":
        return None
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return next((leaf for leaf in leaves if not low <= leaf <= high), None)


def _rounded(leaves, dtype):
    """Numbers as floats: by way of doubles, as TF Serving does, and infinite beyond the range of the dtype."""
    try:
        doubles = np.array(leaves, np.float64)
        # What JSON calls a number and a double does not hold; it may also say Infinity.
        large = any(type(leaves[i]) is float for i in np.flatnonzero(np.isinf(doubles)))
    except OverflowError:
        large = True
    if large:
        raise invalid("JSON Parse error: Number too big to be stored in double.")
    with np.errstate(over="ignore"):
        return doubles.astype(dtype)


def _ragged(value, element):
    """What is wrong with ragged lists, in TF Serving's words."""
    expected = None
    for index, item in enumerate([value] if element is None else value):
        shape = _leading_shape(item)
        fault = _misfit(item, shape)
        expected = shape if expected is None else expected
        if not fault and math.prod(shape) != math.prod(expected):
            fault = f"Expecting tensor size: {math.prod(expected)} but got: {math.prod(shape)}"
        elif not fault and shape != expected:
            fault = f"Expecting shape {_text(expected)} but got: {_text(shape)}"
        if fault:
            where = f"Failed to process element: {index}{element} of 'instances' list. Error: INVALID_ARGUMENT: "
            return fault if element is None else where + fault
    raise AssertionError("The lists are not ragged.")


def _leading_shape(value):
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _misfit(value, shape, level=0):
    if not isinstance(value, list):
        if level == len(shape):
            return None
        where = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
        return f"JSON Value: {_shown(value)} {where}"
    if level >= len(shape):
        return f"Encountered list at unexpected level: {level} expected < {len(shape)}"
    if len(value) != shape[level]:
        return f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
    return next(filter(None, (_misfit(item, shape, level + 1) for item in value)), None)


def _text(shape):
    return f"[{','.join(map(str, shape))}]"


def _to_bytes(name, leaf):
    try:
        if isinstance(leaf, str):
            return leaf.encode()
        if not _is_named(leaf):
            text = "".join(leaf["b64"].split()).rstrip("=")  # As TF Serving: in lines, and padded or not.
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:  # Of base64, or of half a surrogate pair.
        raise invalid(f"'{name}': Unable to decode {_shown(leaf)}: {error}") from None
    raise invalid(f"'{name}': JSON Value: {_shown(leaf)} not formatted correctly for base64 data")


def _to_json(name, array):
    if array.dtype.kind == "O":
        leaf_as_json = _to_base64 if name.endswith("_bytes") else lambda leaf: leaf.decode(errors="replace")
        return _with_leaves(leaf_as_json, array)
    if array.dtype.kind not in "fiub":
        raise invalid(f"Failed to write JSON value of output '{name}' for tensor type: {array.dtype}")
    return shortest(array)


def _with_leaves(change, array):
    """Nested lists of an array of objects, each changed."""
    return np.vectorize(change, otypes=[object])(array).tolist() if array.size else array.tolist()


def _to_base64(leaf):
    return {"b64": base64.b64encode(leaf).decode()}


def _is_named(value):
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get("b64"), str))


def _shown(value):
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
