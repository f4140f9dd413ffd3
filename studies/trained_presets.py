"""Making a preset's weights: a run, its time, and what the card says of the test set."""

import dataclasses
import json
import pathlib
import sys
import warnings
from typing import Any

import iwae_zoo
from iwae_zoo import data, likelihood, presets, training
from iwae_zoo._checks import look_up
from iwae_zoo.estimation import diagnostics, evaluation
from studies import comparison

__all__ = [
    "ACTIVE_EXAMPLES",
    "FIRST_EXAMPLES",
    "PARTICLES",
    "SAMPLES",
    "chosen",
    "configured",
    "evaluate",
    "evaluate_again",
    "first",
    "make",
    "spent",
    "table",
]

# Of the bound in every card, whatever the model was trained on, and importance samples per example.
PARTICLES, SAMPLES = 64, 5000
# First examples of which a card says something that can be found again by other noise, without the error of the data.
FIRST_EXAMPLES = 500
# First examples that active units are counted on: its time grows with their square.
ACTIVE_EXAMPLES = 1000
_HOURS = "hours.json"


def chosen(name, folder):
    """Names of the presets to train: the one that is named, or those that have no card in the folder.

    Raises:
      ValueError: on a name of none.
    """
    names = presets.trained.names()
    if name is not None:
        return [look_up(names, name, "preset with weights")]
    return [known for known in names if not (pathlib.Path(folder) / f"{known}.json").is_file()]


def configured(name, data_dir=None):
    """The `training.Config` of a preset's run."""
    return training.Config(preset=name, data_dir=data_dir, **presets.get(name).training)


def make(name, workdir, folder, data_dir=None, num_examples=None, verbose=1):
    """Trains a preset, from where an earlier call was interrupted, and writes its weights and card.

    Args:
      name: of a preset with weights.
      workdir: path of the run.
      folder: path that the files are written to.
      data_dir: as in `data.load`.
      num_examples: int, of the test set, the first ones, that the card is about; None for all.
      verbose: 0 for silence.

    Returns:
      dict, the card.

    Raises:
      ValueError: if the work directory holds another run.
      RuntimeError: if the data cannot be had, or training diverges.
    """
    workdir = pathlib.Path(workdir)
    run = training.Run(configured(name, data_dir), workdir, resume=True)
    spent(workdir, run.files.checkpoint)
    model = run.train(verbose=verbose)
    hours = spent(workdir, run.files.checkpoint)
    history = run.files.history()
    there = json.loads((workdir / "config.json").read_text())
    found = {
        "data": run.dataset.description,
        "config": {**there["config"], "data_dir": None},  # Where it lay on this machine.
        "versions": {"iwae_zoo": iwae_zoo.__version__, **there["versions"]},
        "epochs": len(history),
        "hours": hours,
        **_scores(model, run.test_set[:num_examples], verbose),
    }
    return presets.trained.save(model, name, found, folder)


def evaluate_again(name, data_dir=None, num_examples=None, verbose=1):
    """Evaluates the weights that the package has, as `make` does, and writes that into their card.

    Args:
      name: of a preset with weights.
      data_dir: as in `data.load`.
      num_examples: as in `make`.
      verbose: 0 for silence.

    Returns:
      dict, the card.

    Raises:
      ValueError: if there are no weights, or the data are not what they were trained on.
      RuntimeError: if the data cannot be had.
    """
    card, model = presets.card(name), presets.load(name)
    config = card["config"]
    dataset = data.load(config["dataset"], data_dir, **training.data_settings(config, config["dataset"]))
    if dataset.description != card["data"]:
        raise ValueError(
            f"The preset {name!r} was trained on {card['data']!r}: received {dataset.description!r}. Name that data by "
            "--data_dir."
        )
    x = dataset.evaluation_array("test")[:num_examples]
    return presets.trained.revise(name, _scores(model, x, verbose))


def _scores(model, x, verbose):
    """What a card says of test examples x [N, ...]."""
    if verbose:
        print(f"Evaluating {len(x)} test examples.", flush=True)
    bar = verbose if sys.stdout.isatty() else 0
    return {"evaluation": evaluate(model, x, verbose=bar), "first": first(model, x[:FIRST_EXAMPLES])}


def evaluate(model, x, num_samples=SAMPLES, verbose=0, **options):
    """What a card says of a test set.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...].
      num_samples: int, importance samples per example.
      verbose: 0 for silence.
      **options: of `evaluation.evaluate`.

    Returns:
      dict: the fields of `evaluation.Evaluation` for a bound at `PARTICLES` particles, log p(x) in the other units of
      the likelihood, "active_units" of "latent_size" on the first `ACTIVE_EXAMPLES`, and "untrusted", the share of the
      examples.
    """
    with warnings.catch_warnings():
        # Their number is in the answer.
        warnings.filterwarnings("ignore", message=r"log p\(x\)", category=UserWarning)
        result = evaluation.evaluate(model, x, num_samples, m=1, k=PARTICLES, verbose=verbose, **options)
    found: dict[str, Any] = dataclasses.asdict(result)
    found |= model.decoder.head.measures(result.log_prob, x)
    found["active_units"] = int(diagnostics.latent_use(model, x[:ACTIVE_EXAMPLES]).active_units)
    found["latent_size"] = int(model.latent_size)
    found["untrusted"] = result.num_untrusted / len(x)
    return found


def first(model, x, seed=0):
    """Mean bound at `PARTICLES` particles and ELBO of examples x [N, ...], nats: dict with "num_examples"."""
    found = likelihood.estimate_dataset(model, x, PARTICLES, seed=seed, method=likelihood.IMPORTANCE, verbose=0)
    return {"num_examples": len(x), "iwae_bound": float(found.log_prob.mean()), "elbo": float(found.elbo.mean())}


def spent(workdir, checkpoint):
    """Hours that a run has trained, in all of its parts, killed ones too: from its start to its last whole epoch.

    Args:
      workdir: `pathlib.Path` of the run.
      checkpoint: `pathlib.Path` of what it goes on from.

    Returns:
      float.
    """
    before = (
        json.loads((workdir / _HOURS).read_text()) if (workdir / _HOURS).is_file() else {"hours": 0.0, "until": 0.0}
    )
    if not (checkpoint.is_file() and (workdir / "config.json").is_file()):
        return before["hours"]
    # A run writes its configuration whenever it starts, and its checkpoint after each epoch.
    start, end = ((path.stat().st_mtime) for path in (workdir / "config.json", checkpoint))
    if end > max(start, before["until"]):
        before = {"hours": before["hours"] + (end - start) / 3600, "until": end}
        training.write_json(workdir / _HOURS, before)
    return before["hours"]


def table(cards):
    """Cards as a markdown table: nats per example, with standard errors over the test set."""
    titles = [
        "preset",
        "trained on",
        "hours",
        "test examples",
        "log p(x)",
        f"{SAMPLES:,} samples",
        f"IWAE-{PARTICLES}",
        "-KL(Q, P)",
    ]
    titles += [f"ESS of {PARTICLES}", "active units", "annealed", "untrusted"]
    rows = []
    for card in cards:
        config, scores = card["config"], card["evaluation"]
        missing = f", {config['missing']:.0%} missing" if config["missing"] else ""
        how = f"{config['dataset']}{missing}, {config['objective']} M={config['m']} K={config['k']}"
        row = [f"`{card['preset']}`", how, f"{card['hours']:.2f}", f"{scores['num_examples']:,}"]
        row += [comparison.number(scores["log_prob"], scores["log_prob_error"])]
        row += [f"{scores['importance_log_prob']:.2f}"]
        row += [comparison.number(scores[name], scores[f"{name}_error"]) for name in ("iwae_bound", "negative_kl")]
        row += [f"{scores['importance_ess']:.1f}", f"{scores['active_units']} of {scores['latent_size']}"]
        row += [f"{scores['num_annealed'] / scores['num_examples']:.1%}", f"{scores['untrusted']:.1%}"]
        rows.append(row)
    return comparison.markdown(titles, rows)
