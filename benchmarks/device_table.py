"""Answers held against each other: the table of `devices.py`, a row pass, fail or skip."""

import fnmatch
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["COMPARISONS", "FAIL", "PASS", "SKIP", "Comparison", "Row", "compare", "keep", "kept", "row"]

PASS, FAIL, SKIP = "pass", "fail", "skip"


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      name: str, what is checked and where.
      status: `PASS`, `FAIL` or `SKIP`.
      measured: float, None where there is nothing.
      limit: float, what it may be at most.
      unit: str.
      reason: str, why nothing was measured.
    """

    name: str
    status: str
    measured: float | None = None
    limit: float | None = None
    unit: str = ""
    reason: str = ""

    def __str__(self):
        number = "" if self.measured is None else f"{self.measured:.2g} (at most {self.limit:g}) {self.unit}"
        return f"{self.status:5}{self.name:64}{number}{self.reason}"


def row(name, measured, limit, unit):
    """A row of something measured; what is not finite fails."""
    status = PASS if np.isfinite(measured) and measured <= limit else FAIL
    return Row(name, status, float(measured), float(limit), unit)


# Nats that rounding may make of log p(x), where an estimate has less error than that.
_ROUNDING = 1e-3

# How far an answer is from another: functions of two dicts of arrays. Every array of the second has to be in the first.
# A number that is NaN, in whichever array, is far: so numpy's maxima, and not Python's.


def relative(found, wanted):
    """Largest distance of an array, relative to the other's norm; log weights, in another unit, are left out."""
    names = [name for name in wanted if name != "log_weights"]
    return np.max([np.linalg.norm(found[n] - wanted[n]) / np.linalg.norm(wanted[n]) for n in names])


def nats(found, wanted):
    """Largest absolute difference."""
    return np.max([np.max(np.abs(found[name] - wanted[name])) for name in wanted])


def log_weights(found, wanted):
    """Largest absolute difference of a log weight."""
    return np.max(np.abs(found["log_weights"] - wanted["log_weights"]))


def other_draws(found, wanted):
    """Share of the draws that are of another particle."""
    return np.mean(~(np.max(np.abs(found["draws"] - wanted["draws"]), axis=-1) <= 1e-3))


def standard_errors(found, wanted):
    """Largest difference in standard errors of the difference; of answers that have less than a nat of it."""
    of_wanted = 0.0 if "expected" in wanted else wanted["standard_error"]
    error = np.maximum(np.hypot(found["standard_error"], of_wanted), _ROUNDING)
    wanted = wanted.get("expected", wanted.get("value"))
    return np.max(np.abs(found["value"] - wanted) / np.where(error < 1.0, error, np.nan))


class Comparison(NamedTuple):
    """What is compared, and how near it has to be.

    Attributes:
      questions: pattern of the questions' names.
      place: str, where it was asked.
      against: str, the place of the other answer; None for what the answer itself says is expected.
      measure: function of two answers.
      limit: float.
      unit: str.
      other: str, the other answer's question; None for the same.
      part: str, what of the answer it is about, where that is not all.
    """

    questions: str
    place: str
    against: str | None
    measure: Callable
    limit: float
    unit: str
    other: str | None = None
    part: str = ""


_GRADIENTS = (relative, 1e-4, "relative")
_NATS = (nats, 1e-3, "nats")
# Of all that training has moved the weights.
_MOVED = (relative, 1e-4, "of the way")
_BY_ITSELF = ("cpu", "gpu")

COMPARISONS = [
    Comparison("gradients of *", "cpu", "float64", *_GRADIENTS),
    Comparison("log p(x)", "cpu", "float64", *_NATS),
    # Eight bits of mantissa, and eleven: what they cost in accuracy, and that it is no more than that.
    *(
        Comparison(f"gradients in {precision}", place, "float64", measure, limit, unit, "gradients of iwae", part)
        for precision, place, of_gradients, of_weights in (
            ("bfloat16", "cpu", 0.1, 5.0),
            ("bfloat16", "gpu", 0.1, 5.0),
            ("TensorFloat-32", "gpu", 0.02, 1.0),
        )
        for measure, limit, unit, part in (
            (relative, of_gradients, "relative", ""),
            (log_weights, of_weights, "nats", "log weights of "),
        )
    ),
    Comparison("gradients of *", "gpu", "cpu", *_GRADIENTS),
    Comparison("log p(x)", "gpu", "cpu", *_NATS),
    *(Comparison("* in closed form", place, None, *_NATS) for place in _BY_ITSELF),
    *(Comparison("annealing of*", place, None, standard_errors, 5.0, "standard errors") for place in _BY_ITSELF),
    *(Comparison("steps_per_execution", place, None, *_MOVED) for place in _BY_ITSELF),
    *(Comparison("input on the device", place, None, nats, 0.0, "of x, to the bit") for place in _BY_ITSELF),
    Comparison("annealing", "gpu", "cpu", standard_errors, 5.0, "standard errors"),
    Comparison("resampling", "gpu", "cpu", other_draws, 0.02, "of the draws"),
    *(Comparison("training", place, "cpu", *_MOVED) for place in ("cpu twice", "gpu", "gpu twice", "gpus")),
    Comparison("training by XLA", "gpu", "cpu", *_MOVED),
    *(Comparison("training by XLA", place, "gpu", *_MOVED) for place in ("gpu twice", "gpus")),
    *(Comparison("training in bfloat16", p, "cpu", relative, 0.1, "of the way", "training") for p in _BY_ITSELF),
    *(Comparison("files", place, place, *_NATS, "log p(x)") for place in _BY_ITSELF),
    Comparison("files of another", "gpu", "cpu", *_NATS, "files"),
    Comparison("files of another", "cpu again", "gpu", *_NATS, "files"),
]


def _path(folder, place, question):
    return pathlib.Path(folder) / "answers" / place / (question.replace(" ", "_") + ".npz")


def keep(folder, place, question, answer):
    """Writes an answer."""
    path = _path(folder, place, question)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **answer)


def kept(folder, place, question):
    """The answer that was written; None if there is none."""
    path = _path(folder, place, question)
    if not path.exists():
        return None
    with np.load(path) as answer:
        return {name: np.asarray(value, np.float64) for name, value in answer.items()}


def compare(folder, place, questions):
    """The rows that the answers of a place make possible; those that have failed have their rows already.

    Args:
      folder: as in `keep`.
      place: str.
      questions: names.
    """
    for comparison in COMPARISONS:
        if comparison.place != place:
            continue
        for question in fnmatch.filter(questions, comparison.questions):
            found = kept(folder, place, question)
            if found is not None:
                yield _compared(comparison, folder, question, found)


def _compared(comparison, folder, question, found):
    place, against, other = comparison.place, comparison.against, comparison.other or question
    wanted = kept(folder, against, other) if against else {"expected": found.pop("expected")}
    name = f"{comparison.part}{question}, {place}" + (f" against {against}" if against not in (None, place) else "")
    if wanted is None:
        return Row(name, FAIL, reason=f"there is no answer of {against} to {other!r} to hold it against")
    try:
        if len(wanted) == 1 and comparison.measure is not standard_errors:  # Each of several answers is to be this one.
            wanted = dict.fromkeys(found, *wanted.values())
        return row(name, comparison.measure(found, wanted), comparison.limit, comparison.unit)
    except Exception as error:
        return Row(name, FAIL, reason=f"{type(error).__name__}: {error}")
