"""Likelihood heads by name. The table is the only list of heads; each family has a file of its own."""

import dataclasses
import typing

from iwae_zoo._checks import look_up, parse
from iwae_zoo.distributions.bernoulli import Bernoulli
from iwae_zoo.distributions.byte import DiscretizedLogistic, DiscretizedLogisticMixture
from iwae_zoo.distributions.classes import Categorical
from iwae_zoo.distributions.columns import Columns
from iwae_zoo.distributions.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from iwae_zoo.distributions.head import Likelihood
from iwae_zoo.distributions.intensity import Beta, ContinuousBernoulli
from iwae_zoo.distributions.real import Laplace, LogNormal, Normal, StudentT

__all__ = [
    "TABLE",
    "Bernoulli",
    "Columns",
    "Likelihood",
    "checked",
    "columns",
    "default",
    "from_config",
    "get",
    "names",
    "of",
    "support",
    "to_config",
]

# A new likelihood is a class and a row. The first one for a kind of data is that kind's default.
TABLE: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "beta": Beta,
    "discretized_logistic": DiscretizedLogistic,
    "discretized_logistic_mixture": DiscretizedLogisticMixture,
    "normal": Normal,
    "student_t": StudentT,
    "laplace": Laplace,
    "log_normal": LogNormal,
    "categorical": Categorical,
    "negative_binomial": NegativeBinomial,
    "poisson": Poisson,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomial,
    "columns": Columns,
}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(identifier):
    """Returns a head by name, with settings where it has some; a `Likelihood` is returned as it is.

    Raises:
      ValueError: on an unknown name, or a setting that the head does not have or take.

    #### Examples
    >>> get("bernoulli,smoothing=0.01")
    Bernoulli(smoothing=0.01)
    """
    if isinstance(identifier, Likelihood):
        return identifier
    head, settings = parse(identifier, "likelihood", TABLE, _settings_of_text)
    return head(**settings)


def of(decoder):
    """The `Likelihood` of a decoder; None of a user's own that has none."""
    head = getattr(decoder, "head", None)
    return head if isinstance(head, Likelihood) else None


def columns(decoder):
    """The `Column`s of a decoder of tables: tuple, empty of any other."""
    return getattr(of(decoder), "columns", ())


def support(decoder):
    """What x may hold for a decoder, for messages: str."""
    head = of(decoder)
    return f"a {head.title} takes {head.values}" if head else "as its distribution has it"


def default(kind):
    """The head that data of a kind get if none is chosen.

    Raises:
      ValueError: if there is none for the kind.
    """
    for head in TABLE.values():
        if kind in head.kinds:
            return head()
    raise ValueError(f"There is no likelihood for data of kind {kind!r}. Choose one of {', '.join(TABLE)}.")


def checked(head, kind, drawn_from=None):
    """Returns the head.

    Args:
      head: `Likelihood`.
      kind: name of the kind of x.
      drawn_from: name of the kind of the data that x is drawn from, if it is another one.

    Raises:
      ValueError: if it is not for data of the kind.
    """
    if kind not in head.kinds:
        settings = [setting for setting, of in Columns.of_kind.items() if kind == "table" and of in head.kinds]
        drawn = f", binarised from data of kind {drawn_from}" if drawn_from not in (None, kind) else ""
        raise ValueError(
            f"The likelihood {head.name!r} is for data of kind {' or '.join(head.kinds)}: received data of kind {kind}"
            f"{drawn}."
            + (" Pass --binarize=none to leave them as they are." if drawn and drawn_from in head.kinds else "")
            + (f" Of a table's columns, use 'columns,{settings[0]}={head.name}'." if settings else "")
        )
    return head


def to_config(head):
    """A JSON-compatible description of a head, from which `from_config` makes an equal one."""
    return {"name": head.name, **{field: _plain(getattr(head, field)) for field in _settings(head)}}


def _plain(value):
    """A field's value as JSON has it."""
    if isinstance(value, Likelihood):
        return to_config(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def from_config(config):
    """The inverse of `to_config`."""
    arguments = dict(config)
    return look_up(TABLE, arguments.pop("name"), "likelihood")(**arguments)


def _settings(head):
    """Names of a head's fields that are its configuration."""
    return [field.name for field in dataclasses.fields(head) if field.compare]


def _settings_of_text(head):
    """Those that a text can name: no sequences, which are fitted to data."""
    kinds = typing.get_type_hints(head)
    return {name: kinds[name] for name in _settings(head) if typing.get_origin(kinds[name]) is not tuple}
