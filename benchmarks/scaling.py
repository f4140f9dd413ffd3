"""Time and memory of a train step against the number of particles: both are to be linear in M K.

    python benchmarks/scaling.py

Each number of particles, decoded whole and in chunks (`--particle_chunk` of train_main.py), is a process of its own. It
reports its peak memory after a few steps, and then times the step in turns with the bare matrix products of that size.
"""

import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

from iwae_zoo_console import quiet

with quiet():
    from benchmarks import report, workload
    from iwae_zoo import figures, objectives

_OBJECTIVE = flags.DEFINE_string("objective", "iwae", "As in train_main.py.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Examples in a batch.", lower_bound=1)
_M = flags.DEFINE_integer("m", 1, "Groups of particles.", lower_bound=1)
_K = flags.DEFINE_list("k", ["1", "4", "16", "64", "256", "1024"], "Particles in a group.")
flags.register_validator(_K, bool, "at least one is needed")
_CHUNK = flags.DEFINE_integer("particle_chunk", 64, "Most particles decoded at once, for the second curve.")
_REPEATS = flags.DEFINE_integer("repeats", 30, "Turns up to 64 particles; fewer above, but five.", lower_bound=1)
_CHILD = flags.DEFINE_list("child", None, "For the program's own use: K and the chunk (0: whole) of one point.")
flags.adopt_module_key_flags(report)


def measure(k, chunk):
    """One point: peak memory, time, ratio to the bare matrix products."""
    objective = objectives.get(_OBJECTIVE.value, m=_M.value, k=k)
    model, x = workload.build(objective, particle_chunk=chunk or None), workload.images(_BATCH_SIZE.value)
    step = workload.train_step(model, x)
    for _ in range(3):
        step()
    peak = report.peak_mebibytes()
    count = _M.value * k
    steps = {"step": step, "bare": workload.bare_products(model, x)}
    turns = report.take_turns(steps, min(_REPEATS.value, max(5, 64 * _REPEATS.value // count)), warm_up=1)
    return {
        "particles": count,
        "milliseconds": turns.milliseconds("step"),
        "over_bare": turns.ratio("step", "bare"),
        "peak_mebibytes": peak,
        "load": turns.load,
    }


def measured_apart(k, chunk):
    """`measure` in a process of its own; None if there is not enough memory for it."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--child={k},{chunk}"]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    if child.returncode == -9 or "ResourceExhausted" in child.stderr:
        return None
    raise SystemExit(f"{' '.join(command)} has failed:\n{child.stderr}")


def exponent(rows):
    """p in time ~ particles^p, fitted from 16 particles on; None with fewer than two such points."""
    points = np.log([(row["particles"], row["milliseconds"]) for row in rows if row["particles"] >= 16])
    return float(np.polyfit(points[:, 0], points[:, 1], 1)[0]) if len(points) > 1 else None


def main(_):
    """Prints the points and the exponents."""
    if _CHILD.value:
        print(json.dumps(measure(*map(int, _CHILD.value))))
        return
    counts = sorted(report.whole_numbers(_K))
    for k in counts:  # Before the first of them is measured.
        objectives.get(_OBJECTIVE.value, m=_M.value, k=k)
    title = f"{_OBJECTIVE.value}, batch {_BATCH_SIZE.value}, M = {_M.value}"
    print(title)
    print(f"{'':18}{'M K':>6}{'ms':>10}{'/ bare':>8}{'peak MiB':>10}{'others':>8}")
    curves, exponents = {}, {}
    for name, chunk in (("whole", 0), (f"in chunks of {_CHUNK.value}", _CHUNK.value)):
        rows = []
        for k in counts:
            row = measured_apart(k, chunk)
            if row is None:
                print(f"{name:18}{_M.value * k:6} does not fit into memory")
                continue
            rows.append(row)
            load = "?" if row["load"] is None else f"{row['load']:.2f}"
            text = f"{name:18}{row['particles']:6}{row['milliseconds']:10.1f}{row['over_bare']:8.2f}"
            print(f"{text}{row['peak_mebibytes']:10.0f}{load:>8}", flush=True)
        curves[name], exponents[name] = rows, exponent(rows)
        if exponents[name] is not None:
            print(f"{name:18}time ~ (M K)^{exponents[name]:.2f} from 16 particles on")
    least = min(row["peak_mebibytes"] for rows in curves.values() for row in rows)
    panels = [
        {
            "title": f"Time, {title}",
            "xlabel": "particles, M K",
            "ylabel": "time of a step (ms)",
            "curves": {
                name: [(row["particles"], row["milliseconds"]) for row in rows] for name, rows in curves.items()
            },
            "slope": 1,
        },
        {
            "title": "Memory",
            "xlabel": "particles, M K",
            "ylabel": f"peak memory above {least:.0f} MiB (MiB)",
            "curves": {
                name: [(r["particles"], r["peak_mebibytes"] - least) for r in rows if r["peak_mebibytes"] > least]
                for name, rows in curves.items()
            },
            "slope": 1,
        },
    ]
    report.write({"curves": curves, "time_exponents": exponents}, figures.scaling(panels))


if __name__ == "__main__":
    report.run(main)
