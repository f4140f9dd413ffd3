"""TensorFloat-32, in which TensorFlow computes float32 products on the GPUs that have it: ten bits of mantissa.

It is on by default, and a setting of the process. A log p(x) that is to be right to 1e-3 nats is not to be had from it,
so whoever answers one, or anything that goes with it, opens a scope without. TensorFlow looks at the setting when a
product runs, not when it is traced: the scope is around the call. Only XLA looks when it compiles.
"""

import contextlib
import threading

import tensorflow as tf

__all__ = ["tensor_float_32"]

_LOCK = threading.Lock()
# What the open scopes of all threads ask for.
_ASKED: list[bool] = []
# What was set before the first of them.
_before = [True]


@contextlib.contextmanager
def tensor_float_32(allowed):
    """Scope, or decorator, with TensorFloat-32 allowed or not; afterwards it is as it was.

    Args:
      allowed: bool. Where scopes meet, one inside another or in several threads, every one of them has to allow it.
    """
    with _LOCK:
        if not _ASKED:
            _before[0] = tf.config.experimental.tensor_float_32_execution_enabled()
        _ASKED.append(allowed)
        tf.config.experimental.enable_tensor_float_32_execution(all(_ASKED))
    try:
        yield
    finally:
        with _LOCK:
            _ASKED.remove(allowed)
            tf.config.experimental.enable_tensor_float_32_execution(all(_ASKED) if _ASKED else _before[0])
