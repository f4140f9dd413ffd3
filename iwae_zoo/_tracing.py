"""Functions that are traced once for each model, and live no longer than it does."""

import contextlib
import functools
import weakref
from typing import Any, NamedTuple

import keras
import tensorflow as tf


class Networks(NamedTuple):
    """A model's networks without the model."""

    encoder: Any
    decoder: Any
    prior: Any

    @classmethod
    def of(cls, model):
        """The networks of a model."""
        return cls(model.encoder, model.decoder, model.prior)


@contextlib.contextmanager
def read_once(variables, values=None):
    """Scope of a traced function, in which layers see their variables as the tensors that they are read into here.

    A read is a side effect to TensorFlow, and loops with side effects wait for each other: rows that are computed
    abreast have to find their weights read.

    An error inside a loop leaves TensorFlow's variable scope as the loop has set it, and no strategy's scope could be
    entered in this thread any more: it is set back.

    Args:
      variables: list of `keras.Variable`.
      values: list of tensors, what was read from them before; None to read them.
    """
    if values is None:
        values = [tf.convert_to_tensor(variable.value) for variable in variables]
    scope = tf.compat.v1.get_variable_scope()
    before = scope.caching_device
    try:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            yield
    finally:
        if scope.caching_device is not before:
            scope.set_caching_device(before)


def per_model(make):
    """Decorator: calls `make(model, *settings)` once for each model and settings, and keeps what it returns.

    Once more where the model has other weights by now, such as adapters or quantised ones. What it returns must hold
    the model's `Networks` and not the model, whose end it would put off.
    """
    made: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    @functools.wraps(make)
    def get(model, *settings):
        weights = tuple(map(id, model.weights))
        if model not in made or made[model][0] != weights:
            made[model] = weights, {}
        _, of_model = made[model]
        if settings not in of_model:
            of_model[settings] = make(model, *settings)
        return of_model[settings]

    return get
