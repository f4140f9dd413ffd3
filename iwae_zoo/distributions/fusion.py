"""Fusing element-wise work over large arrays into one pass, with XLA, wherever that is allowed.

TensorFlow makes one pass over memory for each element-wise operation. On a decoder's [particles, pixels] array these
passes cost as much as the matrix products. XLA fuses them; on a whole train step it is slower than TensorFlow on a CPU,
so only the functions that gain are compiled.
"""

import contextlib
import contextvars
import functools

import tensorflow as tf

__all__ = ["custom_gradient", "fused", "is_portable", "portable"]

_fusing = contextvars.ContextVar("fusing", default=True)
# Whether `fused` functions are compiled, where they are not portable; the tests look at most with plain operations.
_compiling = contextvars.ContextVar("compiling", default=True)


@contextlib.contextmanager
def portable():
    """Inside, `fused` functions are traced as plain TensorFlow operations: for graphs that go to other programs.

    There are no custom gradients either, which such a graph would have to carry along.

    TensorFlow Serving refuses graphs with XLA-compiled functions unless it is told otherwise.
    """
    token = _fusing.set(False)
    try:
        yield
    finally:
        _fusing.reset(token)


def is_portable():
    """Whether this is inside `portable`."""
    return not _fusing.get()


def custom_gradient(function):
    """Decorator: `tf.custom_gradient`, except inside `portable`, where TensorFlow derives the gradient itself."""
    custom = tf.custom_gradient(function)

    @functools.wraps(function)
    def call(*tensors):
        return custom(*tensors) if _fusing.get() else function(*tensors)[0]

    return call


def fused(function):
    """Decorator: compiles a pure function of tensors with XLA, except inside `portable`."""
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*tensors):
        return compiled(*tensors) if _fusing.get() and _compiling.get() else function(*tensors)

    return call
