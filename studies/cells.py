"""A study is a grid of training runs. A finished cell is never run again, and an interrupted one goes on."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
import warnings
from multiprocessing import connection
from typing import Any

import numpy as np
import tensorflow as tf

import iwae_zoo_console as console
from iwae_zoo import training
from iwae_zoo._checks import integer

__all__ = [
    "Countdown",
    "errors_in_one_line",
    "folder",
    "keep",
    "kept",
    "mean_and_error",
    "run_cell",
    "run_grid",
    "test_set",
]

# TensorFlow does not survive a fork.
_CONTEXT = multiprocessing.get_context("spawn")


def run_cell(config, root):
    """Trains and evaluates one configuration in a folder of its own, or reads what an earlier call left there.

    Warnings about log p(x) are left out; the number of such examples is in the evaluation.

    Args:
      config: `training.Config`.
      root: path of the study's folder.

    Returns:
      dict with "evaluation" (what is in evaluation.json) and "history" (list of dicts, one for each epoch).

    Raises:
      ValueError: if the folder holds another configuration.
    """
    if finished := _finished(config, root):
        return finished
    workdir = folder(config, root)
    evaluated = _evaluated(workdir)
    run = training.Run(config, workdir, resume=True)
    _check_looks(config, run.files.history())  # Not after hours of training.
    if evaluated != (config.eval_samples, config.eval_method):  # It is not, or otherwise.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"log p\(x\)")
            run.evaluate(run.train(verbose=0), verbose=0)
    return _read(workdir)


def run_grid(configs, root, workers=1):
    """Runs many cells, and says how far it is.

    With several workers, each is a new process that runs whole cells one after the other on its share of the cores. It
    imports the program anew, which must therefore be guarded by `if __name__ == "__main__"`. TensorFlow's number of
    threads changes how sums are rounded, so that trained weights may differ slightly between numbers of workers.

    Args:
      configs: dict from any key to `training.Config`; the same under two keys is one cell.
      root: path of the study's folder.
      workers: int, number of cells that are run at once; a single one is run in this process.

    Returns:
      dict from the keys to the results of `run_cell`, in the order of `configs`.

    Raises:
      ValueError: if `workers` is not a positive int, two cells that differ have the same folder, a finished cell was of
        other data or looked at in other epochs, or as `run_cell`. An error in one cell ends all that are running; what
        they have saved stays.
      RuntimeError: if a worker died.
    """
    integer("workers", workers)
    of_titles: dict[str, training.Config] = {}
    for config in configs.values():
        if of_titles.setdefault(config.title, config) != config:
            raise ValueError(
                f"Cells that differ must have titles, and thus folders, of their own: received twice {config.title}."
            )
    results = {title: result for title, config in of_titles.items() if (result := _finished(config, root))}
    for title, result in results.items():
        _check_looks(of_titles[title], result["history"])
    if results:
        print(f"{len(results)} of {len(of_titles)} cells were finished before.", flush=True)
    missing = {title: config for title, config in of_titles.items() if title not in results}
    countdown = Countdown("cell", len(of_titles), len(results))

    def done(title, result):
        results[title] = result
        countdown.step(title)

    if workers == 1:
        for title, config in missing.items():
            done(title, run_cell(config, root))
    else:
        _run_in_processes(missing, root, workers, done)
    return {key: results[config.title] for key, config in configs.items()}


def folder(config, root):
    """The folder of a cell."""
    return pathlib.Path(root) / "cells" / config.title


def keep(path, settings, found):
    """Writes what was found to a JSON file, with what it depends on; what was found with other settings stays."""
    others = [there for there in _all_kept(path) if there["settings"] != settings]
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    training.write_json(path, {"kept": [*others, {"settings": settings, "found": found}]})


def kept(path, settings):
    """What `keep` wrote with the same settings, or an empty dict."""
    return next((there["found"] for there in _all_kept(path) if there["settings"] == settings), {})


def once(path, settings, compute):
    """What a function of nothing returns, a dict for JSON: read if `keep` has it with these settings, else kept."""
    found = kept(path, settings)
    if not found:
        found = compute()
        keep(path, settings, found)
    return found


def _all_kept(path):
    """List of dicts with "settings" and "found"; empty if the file is not there, or none of `keep`."""
    try:
        there = json.loads(pathlib.Path(path).read_text())
        found = there.get("kept", [there])  # Once a file was of one setting.
        return [{name: each[name] for name in ("settings", "found")} for each in found]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


class Countdown:
    """Says how far a study is, and how long it will take.

    Args:
      noun: str, what is counted.
      total: int, how many there are.
      done: int, how many of them were done before.
    """

    def __init__(self, noun, total, done=0):
        self._noun, self._total, self._before, self._done = noun, total, done, done
        self._start = time.monotonic()

    def step(self, title):
        """One more is done."""
        self._done += 1
        elapsed = time.monotonic() - self._start
        left = elapsed / (self._done - self._before) * (self._total - self._done)
        print(
            f"{self._noun} {self._done} of {self._total}: {title}, {elapsed:.0f} s so far, about {left:.0f} s to go",
            flush=True,
        )


@contextlib.contextmanager
def errors_in_one_line(name, goes_on=True):
    """Inside, what can go wrong with a study ends the program of that name with one line.

    Args:
      name: str.
      goes_on: bool, whether the same command goes on where it was interrupted, or begins anew.
    """
    try:
        yield
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        console.fail(name, error)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted. The same command {'goes on' if goes_on else 'begins anew'}.")
        sys.exit(130)


def mean_and_error(values):
    """Mean and standard error over the first axis; the error of a single value is NaN."""
    values = np.asarray(values, float)
    error = np.std(values, axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan * values[0]
    return np.mean(values, axis=0), error


def _read(workdir):
    history = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {"evaluation": json.loads((workdir / "evaluation.json").read_text()), "history": history}


def _finished(config, root):
    """What `run_cell` returns, if exactly this configuration is finished, or None.

    Loads no data set, unless its file is another since.

    Raises:
      ValueError: if the data are others by now.
    """
    workdir = folder(config, root)
    try:
        there = training.read_config(workdir / "config.json")
        result = _read(workdir)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # If anything is wrong there, `training.Run` says what.
    same = there == dataclasses.asdict(config.resolved())
    if not same or _evaluated(workdir) != (config.eval_samples, config.eval_method):
        return None
    source = pathlib.Path(config.dataset)
    if source.is_file() and _changed(source) > (workdir / "evaluation.json").stat().st_mtime_ns:
        training.Run(config, workdir, resume=True)  # Which compares them.
    return result


def test_set(config, root):
    """The test set of a finished cell, which has to be that of then; errors as `training.Run`."""
    return training.Run(config, folder(config, root), resume=True).test_set


def _changed(path):
    """When a file came to be what it is, ns: an older one that is moved or copied to its place keeps its mtime."""
    found = path.stat()
    return max(found.st_mtime_ns, found.st_ctime_ns)


def _check_looks(config, history):
    """Raises ValueError if diagnostics saw other epochs of a cell than they would now."""
    every = config.diagnostics_every
    seen = [row["epoch"] for row in history if "diagnostics_encoder_snr" in row]
    if every and seen != [*range(every, len(history) + 1, every)]:
        raise ValueError(
            f"{config.title} was run before, and its diagnostics are of epochs {seen}, not of every {every}: ask for "
            "those, or run it in another --workdir."
        )


def _evaluated(workdir):
    """How a cell was evaluated: number of samples, and method; None if it was not."""
    try:
        there = json.loads((workdir / "evaluation.json").read_text())
        # Of before it was written: what the run had.
        method = there.get("method") or training.read_config(workdir / "config.json")["eval_method"]
        return there["num_samples"], method
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _run_in_processes(configs, root, workers, done):
    """Calls `done(title, result of run_cell)` for each cell, as worker processes finish them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting = list(configs)
    processes, running = {}, {}  # By our end of a worker's pipe: the process, and the key of its cell.

    def feed(pipe):
        if waiting:
            running[pipe] = waiting.pop(0)
            with contextlib.suppress(OSError):  # A dead worker is noticed when its answer is read.
                pipe.send(configs[running[pipe]])
        else:
            pipe.close()  # Which ends the worker.

    try:
        for _ in range(min(workers, len(configs))):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_work, args=(theirs, root, max(1, cores // workers)), daemon=True)
            with _ignoring_sigint():
                process.start()
                processes[ours] = process
            theirs.close()  # An open one here would hide the worker's death.
            feed(ours)
        while running:
            ready: list[Any] = connection.wait(list(running))
            for pipe in ready:
                key = running.pop(pipe)
                try:
                    answer = pipe.recv()
                except (EOFError, OSError):
                    processes[pipe].join()
                    raise RuntimeError(_obituary(configs[key].title, processes[pipe].exitcode)) from None
                if isinstance(answer, Exception):
                    raise answer
                feed(pipe)
                done(key, answer)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _work(pipe, root, threads):
    """A worker process: answers each configuration in the pipe by its result or exception, until the pipe closes."""
    # A parent that is killed cannot end its workers.
    threading.Thread(target=_exit_after, args=(multiprocessing.parent_process(),), daemon=True).start()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    while True:
        try:
            config = pipe.recv()
        except EOFError:
            return
        try:
            answer = run_cell(config, root)
        except Exception as error:
            error.add_note("In a worker:\n" + "".join(traceback.format_tb(error.__traceback__)))
            answer = error
        pipe.send(answer)


def _exit_after(process):
    process.join()
    os._exit(1)


@contextlib.contextmanager
def _ignoring_sigint():
    """Processes started inside inherit it: Ctrl-C is the parent's, which ends its workers, even while they import."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _obituary(title, exitcode):
    how = f"by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"with exit status {exitcode}"
    hint = " (out of memory?)" if exitcode == -signal.SIGKILL else ""
    return (
        f"The worker process that ran {title} was ended {how}{hint}. Finished cells are kept: the same command goes on."
    )
