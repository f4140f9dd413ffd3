"""What the benchmarks share: taking turns, and where the results go."""

import os
import pathlib
import resource
import sys
import time
from typing import NamedTuple

import numpy as np
from absl import app, flags

import iwae_zoo_console as console
from iwae_zoo import figures, training

LOAD = flags.DEFINE_float(
    "load", None, "Processors that others may use in a turn; else the turn does not count. Default: every turn counts."
)
_PATIENCE = flags.DEFINE_integer("patience", 5, "With --load: how many times as many turns to take at most.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "JSON file of the results; a figure goes beside it. Default: runs/benchmarks/<program>.json."
)

# Some benchmarks start processes beside their own.
console.share_gpus()


class Turns(NamedTuple):
    """What variants that took turns have measured.

    Attributes:
      seconds: dict from a variant's name to its times, float array [turns].
      results: dict from a variant's name to what it returned, a list of as many.
      load: processors that others used meanwhile, or None where that cannot be known.
    """

    seconds: dict[str, np.ndarray]
    results: dict[str, list]
    load: float | None

    def milliseconds(self, name):
        """Median time of a variant."""
        return 1e3 * float(np.median(self.seconds[name]))

    def ratio(self, name, reference):
        """Median over the turns of a variant's time over another's."""
        return float(np.median(self.seconds[name] / self.seconds[reference]))

    def __str__(self):
        turns = len(next(iter(self.seconds.values())))
        others = "an unknown share" if self.load is None else f"{self.load:.2f}"
        return f"median of {turns} turns, others used {others} of {os.cpu_count()} processors"


def take_turns(variants, repeats, warm_up=3, helpers=()):
    """Runs functions in turns, so that the ratios of their times hold on a machine whose speed drifts.

    Args:
      variants: dict from a name to a function without arguments, which returns when its work is done.
      repeats: int, number of turns that count.
      warm_up: int, number of turns before, which trace and warm up.
      helpers: ids of other processes that work for the variants.

    Returns:
      `Turns`.

    Raises:
      SystemExit: if the machine is too busy for --load.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    results: dict[str, list] = {name: [] for name in variants}
    elapsed, others, known = [], [], True
    for turn in range(-warm_up, repeats * (1 if LOAD.value is None else _PATIENCE.value)):
        used, begin = _used_by_others(helpers), time.perf_counter()
        times, returned = {}, {}
        for name, run in variants.items():
            start = time.perf_counter()
            returned[name] = run()
            times[name] = time.perf_counter() - start
        duration, used_after = time.perf_counter() - begin, _used_by_others(helpers)
        known = known and used is not None and used_after is not None
        taken = used_after - used if known else 0.0
        if turn < 0 or (LOAD.value is not None and taken >= LOAD.value * duration):
            continue
        for name in variants:
            seconds[name].append(times[name])
            results[name].append(returned[name])
        elapsed.append(duration)
        others.append(taken)
        if len(elapsed) == repeats:
            load = max(sum(others) / sum(elapsed), 0.0) if known else None
            return Turns({name: np.array(values) for name, values in seconds.items()}, results, load)
    raise SystemExit(
        f"The machine is busy: in {_PATIENCE.value * repeats} turns, only {len(elapsed)} of {repeats} had less than "
        f"--load={LOAD.value} processors taken by other programs. Try again later."
    )


def _used_by_others(helpers):
    """Processor seconds that other programs, and the host of a virtual machine, have used so far; None if unknown."""
    try:
        user, nice, system, _, _, irq, softirq, steal = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return None
    ticks = user + nice + system + irq + softirq + steal
    if not ticks:  # Some sandboxes have the file without the numbers.
        return None
    for helper in helpers:
        fields = pathlib.Path(f"/proc/{helper}/stat").read_text().rpartition(")")[2].split()
        ticks -= int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def run(main, writes=True):
    """Parses the flags and ends with what `main` returns; a wrong flag is one line on stderr.

    Args:
      main: function of what is left of the command line.
      writes: bool, whether it leaves files, for which there is to be a place before anything is measured.
    """
    name = pathlib.Path(sys.argv[0]).name

    def parse(arguments):
        console.parse(flags.FLAGS, name, arguments[1:])
        return arguments[:1]

    def guarded(left):
        try:
            if writes:
                output().parent.mkdir(parents=True, exist_ok=True)
                console.check_writable(output())
            return main(left)
        except (ValueError, OSError) as error:
            console.fail(name, " ".join(str(error).split()))

    try:
        app.run(guarded, flags_parser=parse)
    except KeyboardInterrupt:
        sys.exit(130)


def whole_numbers(flag):
    """What a flag lists, list of int; raises ValueError where it is no number from 1 on."""
    if not all(text.isdecimal() and int(text) for text in flag.value):
        raise ValueError(f"--{flag.name} lists whole numbers from 1 on: received {','.join(flag.value)}.")
    return [int(text) for text in flag.value]


def peak_mebibytes():
    """Most memory that this process has had, MiB.

    Linux hands `getrusage`'s number on to the programs that a process starts, its own peak with it.
    """
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def output():
    """Path of the results."""
    return pathlib.Path(_OUTPUT.value or f"runs/benchmarks/{pathlib.Path(sys.argv[0]).stem}.json")


def write_json(results):
    """Writes the program's settings and results as JSON; returns its path."""
    path = output()
    settings = {flag.name: flag.value for flag in flags.FLAGS.get_flags_for_module(sys.argv[0])}
    training.write_json(path, {"settings": settings, **results})
    return path


def write(results, figure):
    """Writes the program's settings and results as JSON and a figure beside it, and says where."""
    path = write_json(results)
    figures.write(figure, path.with_suffix(".png"))
    print(f"written: {path}, {path.with_suffix('.png')}")
