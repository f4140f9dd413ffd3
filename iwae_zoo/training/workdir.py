"""The work directory of a run: its files, and the callback that writes them.

    config.json        what was run; the same configuration gives the same weights
    metrics.jsonl      one line for each epoch
    tensorboard/       the same for TensorBoard
    model.keras        the model and both optimizers after the last whole epoch, or, with early stopping, the best one
    latest.keras       with early stopping: after the last whole epoch; with checkpoint_every also within one
    evaluation.json    the test set's numbers
    *.png              figures

Files appear whole or not at all.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
import time
import zipfile

import keras
import numpy as np

from iwae_zoo._files import read_json, whole, write_text
from iwae_zoo.training.config import IN_STEP, IRRELEVANT, Config

__all__ = ["MONITOR", "EpochEnd", "EpochLine", "WorkDirectory", "data_settings", "read_config", "write_json"]

# What early stopping looks at: the bound that the model is trained for, on the validation set.
MONITOR = "val_decoder_bound"

# In the file of a model within an epoch.
_SUMS = "sums.json"


def write_json(path, value):
    """Writes a JSON file that appears whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


class WorkDirectory:
    """The files of one run.

    Args:
      path: of the work directory; it need not exist.
      config: resolved `Config` of the run.
    """

    def __init__(self, path, config):
        self.path = pathlib.Path(path)
        self.config = config
        self.model = self.path / "model.keras"
        self._latest = self.path / "latest.keras"
        self._metrics = self.path / "metrics.jsonl"
        self._description = self.path / "config.json"

    @property
    def checkpoint(self):
        """The file that --resume goes on from."""
        return self._latest if self._latest.exists() else self.model

    def history(self, epochs=None):
        """The metrics of so many epochs, or of all; one that the checkpoint has not seen is run, and written, again.

        Raises:
          ValueError: if they are damaged, or there are fewer.
        """
        rows = []
        for number, line in enumerate(self._metrics.read_text().splitlines() if self._metrics.exists() else (), 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{self._metrics} is damaged in line {number}: {error}.") from error
        if len(rows) < (epochs or 0):
            raise ValueError(
                f"{self._metrics} has {len(rows)} of the {epochs} epochs that {self.checkpoint.name} has seen. Put the "
                "file back as it was, or start again in another work directory."
            )
        return rows[:epochs]

    def write_history(self, history):
        """Writes the metrics of all epochs."""
        write_text(self._metrics, "".join(json.dumps(row) + "\n" for row in history))

    def save(self, model, history):
        """Saves the model after the last epoch of the history; with early stopping, separately if it is the best."""
        if best_epoch(history) == len(history) or not self.config.early_stopping:
            _save(model, self.model)
        if self.config.early_stopping:
            _save(model, self._latest)
        else:  # Of within the epoch.
            self._latest.unlink(missing_ok=True)

    def save_within_epoch(self, model, sums):
        """Saves the model within an epoch, and what its metrics have summed up so far, as `replicas.read` has it."""
        _save(model, self._latest, sums)

    def sums(self):
        """What the metrics of the checkpoint had summed up; None if it is of the end of an epoch."""
        with zipfile.ZipFile(self.checkpoint) as archive:
            return np.array(json.loads(archive.read(_SUMS)), np.float32) if _SUMS in archive.namelist() else None

    def is_finished(self, history):
        """Whether there is nothing left to train: a function of the history alone, so that a run resumes anywhere."""
        patience = self.config.early_stopping
        return len(history) >= self.config.epochs or bool(
            patience and history and len(history) - best_epoch(history) >= patience
        )

    def check_watched(self, history):
        """Raises ValueError if early stopping has nothing to compare: no validation bound is finite so far."""
        if self.config.early_stopping and not any(math.isfinite(row.get(MONITOR, math.nan)) for row in history):
            raise ValueError(
                f"early_stopping watches {MONITOR}, which is {history[-1].get(MONITOR)}: some validation example is "
                "outside the support of the likelihood. Leave early_stopping out, or look at the data."
            )

    @contextlib.contextmanager
    def alone(self):
        """Inside, no other process on this machine trains in the work directory, which is made if it is not there.

        Raises:
          ValueError: if one does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Until it is closed, or the process ends in any way.
        except BlockingIOError as error:
            os.close(folder)
            raise ValueError(
                f"Another process is training the run in {self.path}. Wait until it has ended, or choose another "
                "--workdir."
            ) from error
        except OSError:
            pass  # A file system that has no locks.
        try:
            yield
        finally:
            os.close(folder)

    def describe(self, **found):
        """Writes what is run: "config", the "versions" of what runs it, and the "fingerprint" of the data."""
        write_json(self._description, found)

    def check_data(self, fingerprint):
        """Raises ValueError if the run that is here was on data of another `Dataset.fingerprint`."""
        there = read_json(self._description) if self._description.exists() else {}
        if there.get("fingerprint", fingerprint) != fingerprint:
            raise ValueError(
                f"The run in {self.path} was on other data: {there['fingerprint']} there and {fingerprint} here. Give "
                "it the data of then, or choose another --workdir."
            )

    def check_chief(self, fingerprint):
        """Raises ValueError if the run that the chief of a cluster has begun here is not the one of this worker."""
        self.check(True)
        self.check_data(fingerprint)
        there, here = read_config(self._description), dataclasses.asdict(self.config)
        if different := _changes(there, here, IN_STEP):
            raise ValueError(f"The workers of a cluster go in step, and the chief has other settings: {different}.")

    def check(self, may_be_there):
        """Checks that the run can be here.

        Args:
          may_be_there: whether the directory may hold the run already.

        Raises:
          ValueError: if it holds something else, or what it may not.
        """
        path = self._description
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"The work directory {self.path} is a file. Choose another with --workdir.")
        if not path.exists():
            if self.path.exists() and any(not path.name.startswith(".partial-") for path in self.path.iterdir()):
                raise ValueError(
                    f"The work directory {self.path} is not empty and holds no run. Choose another with --workdir."
                )
            return
        try:
            there = read_config(path)
        except ValueError as error:
            raise ValueError(f"{path} is not the configuration of a run. Choose another --workdir.") from error
        here = dataclasses.asdict(self.config)
        if different := _changes(there, here, [name for name in here if name not in IRRELEVANT]):
            raise ValueError(
                f"The work directory {self.path} holds a run of another configuration: {different}. Choose another "
                "with --workdir."
            )
        if not may_be_there:
            raise ValueError(
                f"The work directory {self.path} holds this run already. Pass --resume to go on with it, or choose "
                "another with --workdir."
            )


def _changes(there, here, names):
    """str, those of the fields in which two configurations differ."""
    return ", ".join(
        f"{name}={there[name]!r} there and {here[name]!r} here" for name in names if there[name] != here[name]
    )


def read_config(path):
    """The fields of the configuration in a config.json; what an older version did not know is as it had it.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is no configuration.
    """
    try:
        return dataclasses.asdict(Config(schedule="constant")) | read_json(path)["config"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the configuration of a run: {error!r}.") from error


def data_settings(config, dataset, **given):
    """How to load the data that a model is asked about: as given, or else as it was trained.

    Args:
      config: dict, the fields of a run's configuration, or of none.
      dataset: name or path of the data; another one than the run's is loaded by its own defaults.
      **given: those that are given, or None.

    Returns:
      dict with `kind`, `binarize`, `columns` and `missing` of `data.load`.
    """
    there = config if _is_same(config.get("dataset"), dataset) else {}
    names = ("kind", "binarize", "columns", "missing")
    return {name: there.get(name) if given.get(name) is None else given[name] for name in names}


def _is_same(name, other):
    """Whether two names of data sets are of one, such as a file's relative and absolute path."""
    if name is None or not (os.path.exists(name) and os.path.exists(other)):
        return name == other
    return os.path.samefile(name, other)


def best_epoch(history):
    """Number, from 1, of the first epoch with the highest validation bound; 0 if there is none."""
    values = [row.get(MONITOR, float("-inf")) for row in history]
    values = [float("-inf") if math.isnan(value) else value for value in values]
    return values.index(max(values)) + 1 if values else 0


def _save(model, path, sums=None):
    with whole(path) as partial:
        model.save(partial)
        if sums is not None:  # In the same file, so that the two are of the same step.
            with zipfile.ZipFile(partial, "a") as archive:
                archive.writestr(_SUMS, json.dumps(sums.tolist()))


class EpochEnd(keras.callbacks.Callback):
    """After each epoch, its metrics and then the model that --resume goes on from; and the end of training.

    Args:
      workdir: `WorkDirectory`.
      history: list of the metrics of the epochs before.
      writes: whether this process is the one that writes.
    """

    def __init__(self, workdir, history, writes=True):
        super().__init__()
        self._workdir = workdir
        self._history = history
        self._writes = writes

    def on_epoch_end(self, epoch, logs=None):
        self._history.append({"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}})
        self._workdir.check_watched(self._history)
        if self._writes:
            self._workdir.write_history(self._history)
            self._workdir.save(self.model, self._history)
        if self._workdir.is_finished(self._history):
            self.model.stop_training = True


class EpochLine(keras.callbacks.Callback):
    """One plain line for each epoch, for output that is no terminal."""

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        companions = [f"val_{name}" for name in self.model.objective.companions]
        shown = ("decoder_bound", MONITOR, *companions, "elbo", "importance_ess")
        values = "".join(f", {name} {float(logs[name]):.2f}" for name in shown if name in logs)
        seconds = time.monotonic() - self._start
        print(f"epoch {epoch + 1} of {self.params['epochs']}{values}, {seconds:.1f} s", flush=True)
