"""Signal-to-noise ratio of the gradients against the number of particles, on models where all of it is known.

    python studies/snr_slopes_main.py --workdir=runs/snr_slopes

Theory (Rainforth et al. 2018, eq. 5 and 6): the encoder's SNR goes as sqrt(M / K), the decoder's as sqrt(M K). Of the
estimators for latents that cannot be reparameterised, on a model of two bits, VIMCO's goes as 1 / sqrt(K) and OVIS' as
sqrt(K) (Lievin et al. 2020). Written are slopes.csv and slopes.png.
"""

import csv
import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import diagnostics, figures, objectives
    from iwae_zoo._files import whole
    from iwae_zoo.testing import Enumerable, LinearGaussian
    from studies import cells

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string("workdir", "runs/snr_slopes", "Folder of the study.", flag_values=_FLAGS)
_MAX_PARTICLES = flags.DEFINE_integer(
    "max_particles", 64, "Largest K and M; powers of 2 up to it.", lower_bound=16, flag_values=_FLAGS
)
_REPEATS = flags.DEFINE_integer("repeats", 2000, "Gradients for each point.", lower_bound=100, flag_values=_FLAGS)
_LATENT_SIZE = flags.DEFINE_integer("latent_size", 4, "Dimensions of z.", lower_bound=1, flag_values=_FLAGS)
_DATA_SIZE = flags.DEFINE_integer("data_size", 6, "Dimensions of x.", lower_bound=1, flag_values=_FLAGS)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 8, "Examples in the fixed minibatch.", lower_bound=1, flag_values=_FLAGS
)
_MISMATCH = flags.DEFINE_float(
    "mismatch", 0.3, "How far the encoder is from the posterior; see LinearGaussian.model.", flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Of the model, the minibatch and all noise.",
    lower_bound=0,
    upper_bound=2**31 - 1,
    flag_values=_FLAGS,
)

# Panel, label, objective and its estimator, what grows, side, the theory's exponent.
_BITS = "two bits: SNR against K at M = 1"
_CURVES = (
    ("SNR against K at M = 1", "encoder, IWAE", ("iwae", None), "k", "encoder", -0.5),
    ("SNR against K at M = 1", "encoder, DReG", ("dreg", None), "k", "encoder", None),
    ("SNR against K at M = 1", "decoder, IWAE", ("iwae", None), "k", "decoder", 0.5),
    ("SNR against M at K = 8", "encoder, MIWAE", ("miwae", None), "m", "encoder", 0.5),
    ("SNR against M at K = 8", "decoder, MIWAE", ("miwae", None), "m", "decoder", 0.5),
    (_BITS, "encoder, VIMCO", ("vimco", None), "k", "encoder", -0.5),
    (_BITS, "encoder, OVIS", ("ovis", None), "k", "encoder", 0.5),
    (_BITS, "encoder, OVIS, gamma = 1", ("ovis", "ovis,gamma=1"), "k", "encoder", None),
)


def fit_slope(x, snr, error):
    """Weighted least squares of log SNR on log x: (slope, its standard error from the points' own errors)."""
    log_x = np.log(x) - np.average(np.log(x), weights=(snr / error) ** 2)
    weights = (snr / error) ** 2
    slope = np.sum(weights * log_x * np.log(snr)) / np.sum(weights * log_x**2)
    return float(slope), float(1 / np.sqrt(np.sum(weights * log_x**2)))


def main(name):
    """Measures, fits, and writes the table and the figure."""
    with cells.errors_in_one_line(name, goes_on=False):
        study(pathlib.Path(_WORKDIR.value))


def study(workdir):
    """The same, in a folder."""
    table, figure = workdir / "slopes.csv", workdir / "slopes.png"
    workdir.mkdir(parents=True, exist_ok=True)
    for path in (table, figure):
        console.check_writable(path)
    truth = LinearGaussian.random(_LATENT_SIZE.value, _DATA_SIZE.value, seed=_SEED.value)
    x = truth.sample(_BATCH_SIZE.value, seed=_SEED.value)
    # Weights so small that q is near the posterior: the theory is of many particles, as seen from there.
    bits = Enumerable(scale=0.3, seed=_SEED.value)
    bits_x = bits.data[np.arange(_BATCH_SIZE.value) % len(bits.data)]
    # The theory is of many particles: from 4 on.
    counts = [int(count) for count in 2 ** np.arange(2, int(np.log2(_MAX_PARTICLES.value)) + 1)]
    measured = {}
    for name, axis, discrete in dict.fromkeys((curve[2], curve[3], curve[0] == _BITS) for curve in _CURVES):
        for count in counts:
            shape = {"m": 1, "k": count} if axis == "k" else {"m": count, "k": 8}
            objective = objectives.get(name[0], estimator=name[1], **shape)
            if discrete:
                snr = diagnostics.gradient_snr(bits.model(objective), bits_x, _REPEATS.value, _SEED.value)
            else:
                model = truth.model(objective, mismatch=_MISMATCH.value)
                snr = diagnostics.gradient_snr(model, x, _REPEATS.value, _SEED.value)
            measured[name, axis, count] = snr
            title = name[1] or name[0]
            print(
                f"{title}, {shape}: encoder {snr.encoder.mean:.3f} (DSNR {snr.encoder.dsnr:.3f}, variance "
                f"{snr.encoder.variance:.3g}), decoder {snr.decoder.mean:.3f}",
                flush=True,
            )
    curves = []
    for panel, label, name, axis, side, theory in _CURVES:
        sides = [getattr(measured[name, axis, count], side) for count in counts]
        snr, error = np.array([s.mean for s in sides]), np.array([s.mean_error for s in sides])
        slope, slope_error = fit_slope(np.array(counts), snr, error)
        curve = {"panel": panel, "label": label, "x": counts, "snr": snr, "error": error, "xlabel": f"{axis.upper()}"}
        curve |= {"dsnr": [s.dsnr for s in sides], "variance": [s.variance for s in sides]}
        curves.append({**curve, "theory": theory, "slope": slope, "slope_error": slope_error})
        stated = "no theory" if theory is None else f"theory {theory:+.2f}"
        print(f"{panel}, {label}: slope {slope:+.3f} +- {slope_error:.3f} ({stated})")
    with whole(table) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["panel", "label", "particles", "snr", "error", "dsnr", "variance", "slope", "slope_error", "theory"]
        )
        for curve in curves:
            rest = [curve[key] for key in ("slope", "slope_error", "theory")]
            points = zip(*(curve[key] for key in ("x", "snr", "error", "dsnr", "variance")), strict=True)
            writer.writerows([curve["panel"], curve["label"], *point, *rest] for point in points)
    title = f"linear-Gaussian model and one of bits, {_REPEATS.value} gradients a point, seed {_SEED.value}"
    figures.write(figures.snr_slopes(curves, title), figure)


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("snr_slopes_main", sys.argv[1:])
