"""First contact with a machine: is what its devices answer right, and how fast are they. Ten minutes at most.

    python benchmarks/devices.py
    python benchmarks/devices.py --quick            # tiny shapes: does the program itself run here?

Right: gradients of every objective, log p(x), annealing, resampling, training, exported models and files, on the GPU
against the CPU, and on the CPU against float64; two logical devices of one card, and all cards, against one; retracing,
and copies to the host within a step. Each is a row: pass, fail, or skip with what is not there. Fast: figures with
aims, which are no checks. Each stage is a process of its own: one that dies, or takes too long, is a row, and the rest
goes on. The JSON is written after every row. The exit status is 1 if a row fails.
"""

import ctypes
import fnmatch
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

from iwae_zoo_console import quiet

with quiet():
    import tensorflow as tf

    from benchmarks import device_checks, device_figures, device_profile, device_table, report
    from benchmarks.device_figures import Figure
    from benchmarks.device_table import FAIL, PASS, SKIP, Row
    from iwae_zoo import figures, strategies
    from iwae_zoo.training import devices

_QUICK = flags.DEFINE_bool("quick", False, "Tiny shapes; the figures mean nothing.")
_ONLY = flags.DEFINE_list("only", None, "Stages to run, whose answers are held against those of 'cpu' and 'float64'.")
_MINUTES = flags.DEFINE_float("minutes", 10.0, "When stages that still run are ended.", 0.1)
_STAGE = flags.DEFINE_string("stage", None, "For the program's own use: run this stage.")
_FOLDER = flags.DEFINE_string("folder", None, "For the program's own use: where places leave their answers.")
flags.adopt_module_key_flags(report)

# How a line begins that a stage's process says to the program, not to people.
_MARK = "::"


class Stage(NamedTuple):
    """What one process does.

    Attributes:
      devices: as in `training.devices`; {cards} stands for their number.
      cards: int, how many GPUs it needs.
      asked: patterns of the questions that it asks; or none.
      reads: str, the place whose files it reads.
      run: function of a `device_checks.Place` that yields rows and figures, instead of questions.
    """

    devices: str
    cards: int = 0
    asked: tuple[str, ...] = ()
    reads: str = "cpu"
    run: Callable | None = None


def step_checks(place):
    """Retracing, anywhere; copies to the host, on a card."""
    model = place.build("piwae", jit_compile=place.name == "step")
    yield device_table.row(
        "retracing after the first epoch", device_profile.retraced(model, place.x[:3], 2), 0, "traces"
    )
    x = tf.constant(place.x)
    activity = device_profile.profiled(tf.function(lambda: model.train_step(x), autograph=False))
    name = "copies to the host within a step"
    if activity is None:
        yield Row(name, SKIP, reason="the profiler has seen no card")
    else:
        yield device_table.row(name, activity.copies, 0, "copies")


def _figures(function):
    """A stage's `run` that measures."""
    return lambda place: function(device_figures.TINY if _QUICK.value else device_figures.FULL)


_ON_CPU: tuple[str, ...] = ("gradients of *", "gradients in bfloat16", "log p(x)*", "resampling", "training*")
_ON_CPU += ("steps_per_execution", "input on the device", "files", "annealing*")
STAGES = {
    "float64": Stage("cpu", asked=("gradients of *", "log p(x)")),
    "cpu": Stage("cpu", asked=_ON_CPU),
    "cpu twice": Stage("cpu:1x2", asked=("training",)),
    "step on the cpu": Stage("cpu", run=step_checks),
    "gpu": Stage("gpu", cards=1, asked=("*",)),
    "gpu twice": Stage("gpu:1x2", cards=1, asked=("training", "training by XLA")),
    "gpus": Stage("gpu:{cards}", cards=2, asked=("training", "training by XLA")),
    "cpu again": Stage("cpu", cards=1, asked=("files of another",), reads="gpu"),
    "step": Stage("gpu", cards=1, run=step_checks),
    "speed": Stage("gpu", cards=1, run=_figures(device_figures.speed)),
    "queries": Stage("gpu", cards=1, run=_figures(device_figures.queries)),
}


def cards():
    """Number of GPUs."""
    return len(tf.config.list_physical_devices("GPU"))


def asked(stage, sizes):
    """Names of a stage's questions."""
    return [name for name in device_checks.questions(sizes) if any(fnmatch.fnmatch(name, p) for p in stage.asked)]


def missing(question, place):
    """What is not here that a question needs, or None."""
    if "closed form" in question and place.name.startswith("gpu"):
        try:
            ctypes.CDLL("libcusolver.so.11").cusolverDnCreate  # noqa: B018
        except (OSError, AttributeError) as error:
            return f"no cuSOLVER, which linear algebra needs: {error}"
    return None


def answer(name, place, tell):
    """Runs a stage in this process.

    Args:
      name: a key of `STAGES`.
      place: `device_checks.Place`.
      tell: function of each `Row` or `Figure`, and of each question (str) that has an answer.
    """
    stage = STAGES[name]
    if stage.run:
        try:
            for told in stage.run(place):
                tell(told)
        except ModuleNotFoundError as error:
            tell(Row(name, SKIP, reason=str(error)))
        except Exception as error:
            tell(Row(name, FAIL, reason=_short(error)))
        return
    questions = device_checks.questions(place.sizes)
    for question in asked(stage, place.sizes):
        if reason := missing(question, place):
            tell(Row(f"{question}, {name}", SKIP, reason=reason))
            continue
        try:
            device_table.keep(place.folder, name, question, questions[question](place))
        except Exception as error:
            tell(Row(f"{question}, {name}", FAIL, reason=_short(error)))
            continue
        tell(question)


def _short(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def here(name, folder, sizes, tell, seconds):
    """Runs a stage in this process, whose devices are what they are."""
    del seconds
    strategy = tf.distribute.get_strategy()
    if name.endswith("twice"):
        strategy = strategies.mirrored(devices.Devices("CPU", 2, shared=True))
    _answer_at(name, strategy, folder, sizes, tell)


def _answer_at(name, strategy, folder, sizes, tell):
    dtype = "float64" if name == "float64" else "float32"
    answer(name, device_checks.Place(strategy, sizes, folder, name, STAGES[name].reads, dtype), tell)


def apart(name, folder, sizes, tell, seconds):
    """Runs a stage in a process of its own, for so many seconds at most, and passes on what it tells."""
    del sizes
    command = [sys.executable, __file__, f"--stage={name}", f"--folder={folder}", f"--quick={_QUICK.value}"]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True) as process,
    ):
        # With whatever the stage has started, such as a server.
        timer = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            for line in process.stdout or ():
                if line.startswith(_MARK):
                    tell(_read(json.loads(line[len(_MARK) :])))
        except BaseException:  # This program is interrupted.
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if process.wait():
            said.seek(0)
            last = said.read().decode(errors="replace").split("\n")[-2:]
            why = "ran out of time" if late else f"ended with status {process.returncode}: {' '.join(last)[-300:]}"
            tell(Row(f"stage {name}", FAIL, reason=why))


def _read(told):
    return told if isinstance(told, str) else {"row": Row, "figure": Figure}[told[0]](*told[1])


def _said(told):
    """The same as text, flushed at once: this process may not live long."""
    form = told if isinstance(told, str) else ("row" if isinstance(told, Row) else "figure", list(told))
    print(_MARK + json.dumps(form), flush=True)


def check(names, sizes, run, show, folder, clock=time.monotonic):
    """Runs stages and compares what they answer.

    Args:
      names: of `STAGES`, in their order.
      sizes: `device_checks.Sizes`.
      run: `here` or `apart`.
      show: function of the stage and each `Row` or `Figure`, as soon as there is one.
      folder: path for the answers.
      clock: function that returns seconds.
    """
    end = clock() + 60.0 * _MINUTES.value
    for name in names:
        stage, found = STAGES[name], cards()
        if found < stage.cards:
            rows = len(asked(stage, sizes)) or 1
            reason = f"{stage.cards} needed, {found} GPUs here; {rows} checks or more"
            show(name, Row(f"stage {name}", SKIP, reason=reason))
            continue
        if clock() >= end:
            show(name, Row(f"stage {name}", FAIL, reason=f"the {_MINUTES.value:g} minutes were over"))
            continue

        def tell(told, name=name):
            if isinstance(told, str):
                for compared in device_table.compare(folder, name, [told]):
                    show(name, compared)
            else:
                show(name, told)

        run(name, folder, sizes, tell, end - clock())


def drawn(shown):
    """The figures that are ratios, as bars, with their aims."""
    ratios = {f"{figure.name} ({figure.bound})": figure.value for figure in shown if figure.unit == "ratio"}
    return figures.ratio_bars(
        ratios, "A train step and log p(x) on this machine", "time / time of the bare products; rate / rate of these"
    )


def main(_):
    """Prints rows and figures as they come; returns the exit status."""
    sizes = device_checks.QUICK if _QUICK.value else device_checks.Sizes()
    if _STAGE.value:
        stage = STAGES[_STAGE.value]
        used = devices.use(stage.devices.format(cards=cards()))
        strategy = strategies.mirrored(used) if used.number > 1 else tf.distribute.get_strategy()
        _answer_at(_STAGE.value, strategy, _FOLDER.value, sizes, _said)
        return 0
    if unknown := set(_ONLY.value or ()) - set(STAGES):
        raise ValueError(f"--only: {sorted(unknown)} are no stages. Known: {', '.join(STAGES)}.")
    start, rows, shown = time.monotonic(), list[dict](), list[dict]()
    names = [device["device_name"] for device in map(tf.config.experimental.get_device_details, _gpus())]
    about = {"gpus": names, "tensorflow": tf.__version__}
    print(f"TensorFlow {tf.__version__}, GPUs: {', '.join(names) or 'none'}", flush=True)

    def show(stage, told):
        elapsed = time.monotonic() - start
        (rows if isinstance(told, Row) else shown).append({"stage": stage, "elapsed": elapsed, "told": told})
        print(f"{elapsed:5.0f} s {told}", flush=True)
        results = {kind: [_as_json(entry) for entry in of] for kind, of in (("checks", rows), ("figures", shown))}
        report.write_json(about | results)

    with tempfile.TemporaryDirectory() as folder:
        chosen = [name for name in STAGES if not _ONLY.value or name in _ONLY.value]
        check(chosen, sizes, apart, show, folder)
    counts = {status: sum(entry["told"].status == status for entry in rows) for status in (PASS, FAIL, SKIP)}
    print(", ".join(f"{count} {status}" for status, count in counts.items()), f"{time.monotonic() - start:.0f} s")
    ratios = [entry["told"] for entry in shown]
    if any(figure.unit == "ratio" for figure in ratios):
        figures.write(drawn(ratios), report.output().with_suffix(".png"))
    return 1 if counts[FAIL] else 0


def _gpus():
    return tf.config.list_physical_devices("GPU")


def _as_json(entry):
    return {"stage": entry["stage"], "elapsed": entry["elapsed"], **entry["told"]._asdict()}


if __name__ == "__main__":
    report.run(main)
