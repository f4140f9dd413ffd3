"""Functions that are traced once for each model, and live no longer than it does."""

import functools
import weakref
from typing import Any, NamedTuple


class Networks(NamedTuple):
    """A model's networks without the model."""

    encoder: Any
    decoder: Any
    prior: Any

    @classmethod
    def of(cls, model):
        """The networks of a model."""
        return cls(model.encoder, model.decoder, model.prior)


def per_model(make):
    """Decorator: calls `make(model, *settings)` once for each model and settings, and keeps what it returns.

    What it returns must hold the model's `Networks` and not the model, whose end it would put off.
    """
    made: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    @functools.wraps(make)
    def get(model, *settings):
        of_model = made.setdefault(model, {})
        if settings not in of_model:
            of_model[settings] = make(model, *settings)
        return of_model[settings]

    return get
