r"""Does log p(x) tell anomalies, also where cells are missing?

    python studies/anomaly_main.py
    python studies/anomaly_main.py --problems=breast_cancer,digits_9,digits_1 --seeds=5

A model is fitted to the rows of one class (benign tumours, or all digits but one), and tells others from rows of that
class which it has not seen: by the log p of what is observed, and by its ELBO. scikit-learn's detectors do the same;
where one takes no missing values, it gets the mean of the column. What is finished is not run again. At the end there
are table.md, results.json and anomaly.png.
"""

import functools
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import figures, presets, training
    from iwae_zoo._checks import look_up
    from iwae_zoo._files import write_text
    from studies import anomaly, cells, comparison

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string("workdir", "runs/anomaly", "Folder of the study.", flag_values=_FLAGS)
_PROBLEMS = flags.DEFINE_list(
    "problems", ["breast_cancer", "digits_9"], f"Of {', '.join(anomaly.PROBLEMS)}.", flag_values=_FLAGS
)
flags.register_validator(_PROBLEMS, bool, "at least one is needed", flag_values=_FLAGS)
_RATES = flags.DEFINE_list("rates", ["0", "30", "50"], "Percent of the cells that are missing.", flag_values=_FLAGS)
flags.register_validator(_RATES, bool, "at least one is needed", flag_values=_FLAGS)
_OBJECTIVE = flags.DEFINE_string("objective", "iwae", "As in studies/comparison.py.", flag_values=_FLAGS)
_PEERS = flags.DEFINE_list("peers", list(anomaly.PEERS), "scikit-learn's detectors; of these.", flag_values=_FLAGS)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds of training.", lower_bound=1, flag_values=_FLAGS)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Passes over the rows. Default: the preset's.", lower_bound=1, flag_values=_FLAGS
)
_M = flags.DEFINE_integer("m", 4, "Groups of particles.", lower_bound=1, flag_values=_FLAGS)
_K = flags.DEFINE_integer("k", 5, "Particles in a group.", lower_bound=1, flag_values=_FLAGS)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 1000, "Particles for each row's log p.", lower_bound=2, flag_values=_FLAGS
)
_RESAMPLES = flags.DEFINE_integer(
    "resamples", 500, "Resamples of the rows for the intervals.", lower_bound=1, flag_values=_FLAGS
)

_MODEL = {"log_prob": "log p", "elbo": "ELBO"}
_TITLES = {"auroc": "AUROC", "average_precision": "average precision"}


def rates(texts):
    """Shares from percents.

    Raises:
      ValueError: if one is not a whole number below 100.
    """
    for text in texts:
        if not (text.isdigit() and int(text) < 100):
            raise ValueError(f"A rate must be a whole number from 0 to 99, in percent: received {text!r}.")
    return [int(text) / 100 for text in texts]


def measured(problem, method, seed, parts):
    """Scores by label, lists [R][T], of a model's seed or of a peer's; read if they are there."""
    path = pathlib.Path(_WORKDIR.value) / "cells" / f"{problem}-{method}-seed{seed}.json"
    settings: dict[str, Any] = {"rates": _RATES.value}
    if method in _MODEL:
        epochs = _EPOCHS.value or presets.get("table").epochs
        settings |= {"epochs": epochs, "num_samples": _NUM_SAMPLES.value, **parts}

    def compute():
        rows, x, _ = anomaly.problem(problem)
        if method in _MODEL:
            objective = training.Config(**parts).build_objective()
            found = anomaly.of_model(rows, x, rates(_RATES.value), objective, seed, _EPOCHS.value, _NUM_SAMPLES.value)
        else:
            found = {method: anomaly.of_peer(rows, x, rates(_RATES.value), method, seed)}
        return {label: scores.tolist() for label, scores in found.items()}

    return cells.once(path, settings, compute)


def judged(scores, anomalous, percents, resamples):
    """What is said of a problem.

    Args:
      scores: dict from a method to an array [S, R, T].
      anomalous: bool array [T].
      percents: list of R str.
      resamples: int, for the intervals.

    Returns:
      dict from a percent to a dict of each metric: "values", from a method to (value, low, high); and "differences" to
      log p, the same.
    """
    found: dict[str, dict] = {}
    for number, percent in enumerate(percents):
        of_methods = {name: anomaly.bootstrapped(of[:, number], anomalous, resamples) for name, of in scores.items()}
        for metric in anomaly.METRICS:
            values = {name: of[metric] for name, of in of_methods.items()}
            found.setdefault(percent, {})[metric] = {
                "values": {name: anomaly.interval(of) for name, of in values.items()},
                "differences": anomaly.differences(values, "log_prob"),
            }
    return found


def table(problem, found, anomalous, labels):
    """What `judged` returns as text, and where others are better than log p."""
    titles = ["method", *(f"{title}, {percent} %" for title in _TITLES.values() for percent in found)]
    rows = [
        [label, *(_number(found[percent][metric]["values"][name]) for metric in _TITLES for percent in found)]
        for name, label in labels.items()
    ]
    better = [
        f"- With {percent} % missing, {labels[name]} has a better {_TITLES[metric]}, by {_number(difference)}.\n"
        for percent, of_metrics in found.items()
        for metric, of in of_metrics.items()
        for name, difference in of["differences"].items()
        if difference[1] > 0
    ]
    text = f"{problem}, {anomalous.sum()} anomalies of {len(anomalous)} rows, by percent of the cells missing:\n\n"
    return (
        text
        + comparison.markdown(titles, rows)
        + "\n"
        + ("Better than log p:\n\n" + "".join(better) if better else "None is better than log p.\n")
    )


def draw(results, labels):
    """Both metrics over the rate, problems side by side."""
    panels = []
    for metric, title in _TITLES.items():
        row = []
        for problem, found in results.items():
            curves: dict[str, list] = {label: [] for label in labels.values()}
            for percent, of_metrics in found.items():
                for name, values in of_metrics[metric]["values"].items():
                    curves[labels[name]].append((int(percent), *values))
            row.append({"title": problem, "xlabel": "missing cells, %", "ylabel": title, "reference": None})
            row[-1]["curves"] = curves
        panels.append(row)
    return figures.curves(panels, "Anomalies told apart; bars are 95 % bootstrap intervals")


def _number(values):
    value, low, high = values
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def main(name):
    """Fits and scores, then writes the tables and the figure."""
    workdir = pathlib.Path(_WORKDIR.value)
    with cells.errors_in_one_line(name):
        parts = look_up(comparison.objectives(_M.value, _K.value), _OBJECTIVE.value, "objective")[1]
        training.Config(**parts).build_objective()  # An error now, and not later.
        rates(_RATES.value)
        of_peers = {peer: look_up(anomaly.PEERS, peer, "peer")[0] for peer in _PEERS.value}
        problems = {problem: anomaly.problem(problem) for problem in _PROBLEMS.value}
        countdown = cells.Countdown("problem", len(problems))
        results, text = {}, ""
        for problem, (rows, _, anomalous) in problems.items():
            seeds = range(_SEEDS.value)
            of_model = [measured(problem, "log_prob", seed, parts) for seed in seeds]
            scores = {label: np.array([of[label] for of in of_model]) for label in _MODEL}
            for peer in of_peers:
                scores[peer] = np.array([measured(problem, peer, seed, parts)[peer] for seed in seeds])
            labels = dict(_MODEL)
            for peer, label in of_peers.items():
                takes_nan = anomaly.takes_nan(anomaly.PEERS[peer][1](rows[:100], 0))
                labels[peer] = label if takes_nan else f"{label}, of means where missing"
            results[problem] = judged(scores, anomalous, _RATES.value, _RESAMPLES.value)
            text += table(problem, results[problem], anomalous, labels) + "\n"
            countdown.step(problem)
        print(text)
        write_text(workdir / "table.md", text)
        training.write_json(workdir / "results.json", results)
        figures.write(draw(results, labels), workdir / "anomaly.png")


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("anomaly_main", sys.argv[1:])
