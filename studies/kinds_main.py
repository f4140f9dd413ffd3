"""Data of other kinds, each with something that a model's log p(x) can be measured by.

    python studies/kinds_main.py --workdir=runs/kinds

Written are .npz files for `train_main.py`, each with its own test set, and references.json:

    digits_bytes    8x8 digits as bytes: bits per dimension of PNG, zlib and LZMA
    photographs     32x32 patches of two photographs in colour: the same
    breast_cancer   30 measurements of 569 cell nuclei: log p(x) of one Normal with full covariance
    counts          2,000 rows of 50 counts, drawn from a mixture whose log p(x) has a closed form: the truth
"""

import functools
import io
import lzma
import pathlib
import sys
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
import PIL.Image
import scipy.special
import scipy.stats
import sklearn.datasets
from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import training
    from iwae_zoo._files import whole

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string("workdir", "runs/kinds", "Folder of the files.", flag_values=_FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Of the splits and of the counts.", lower_bound=0, flag_values=_FLAGS)


def split(rows, seed):
    """dict of train, validation and test, 80, 10 and 10 percent of the rows, permuted."""
    order = np.random.default_rng(seed).permutation(len(rows))
    tenth = len(rows) // 10
    parts = {"test": order[:tenth], "validation": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    return {name: rows[places] for name, places in parts.items()}


def patches(photographs, size=32, step=8):
    """dict of train, validation and test: square patches of photographs, no pixel of which is in two of the three.

    A photograph is cut from top to bottom, 70, 15 and 15 percent of its width. Patches of the training part overlap.

    Args:
      photographs: uint8 array [N, height, width, channels].
      size: int, width of a patch.
      step: int, from one patch of the training part to the next.
    """
    *_, width, channels = photographs.shape
    first, second = round(0.7 * width), round(0.85 * width)
    cuts = {"train": (0, first, step), "validation": (first, second, size), "test": (second, width, size)}
    parts = {}
    for name, (start, end, stride) in cuts.items():
        strip = photographs[:, :, start:end]
        windows = np.lib.stride_tricks.sliding_window_view(strip, (size, size), axis=(1, 2))[:, ::stride, ::stride]
        parts[name] = np.moveaxis(windows, 3, -1).reshape(-1, size, size, channels)
    return parts


def png(image):
    """Bytes of a PNG of a uint8 image [height, width] or [height, width, 3]."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "png", optimize=True)
    return len(file.getvalue())


def compressed(images):
    """Bits per dimension of uint8 images [N, height, width, ...]: as PNG, and all in one stream."""
    per_dimension = 8.0 / images.size
    pngs = sum(png(image) for image in images)
    stream = images.tobytes()
    return {
        "PNG, each image": pngs * per_dimension,
        "PNG, one under the other": png(images.reshape(-1, *images.shape[2:])) * per_dimension,
        "zlib, all images": len(zlib.compress(stream, 9)) * per_dimension,
        "LZMA, all images": len(lzma.compress(stream, preset=9 | lzma.PRESET_EXTREME)) * per_dimension,
    }


def normal_log_prob(train, test):
    """Mean log-density, in nats, of the Normal with the mean and covariance of the training data."""
    # In their own units columns differ too much for their covariance to have an inverse in float64.
    mean, scale = train.mean(axis=0), train.std(axis=0)
    train, test = (train - mean) / scale, (test - mean) / scale
    fitted = scipy.stats.multivariate_normal(train.mean(axis=0), np.cov(train.T))
    return float(fitted.logpdf(test).mean() - np.log(scale).sum())


class MixtureOfCounts:
    """p(x) = sum_c weight_c prod_v NB(x_v; mean_cv, concentration), known in full.

    Args:
      classes: int.
      columns: int.
      seed: int, of its parameters.
    """

    concentration = 4.0

    def __init__(self, classes, columns, seed):
        rng = np.random.default_rng(seed)
        self.weights = rng.dirichlet(np.full(classes, 5.0))
        self.means = rng.gamma(1.5, 3.0, size=(classes, columns))

    def sample(self, size, seed):
        """Draws [size, columns]."""
        rng = np.random.default_rng(seed)
        means = self.means[rng.choice(len(self.weights), size, p=self.weights)]
        return rng.poisson(means * rng.gamma(self.concentration, 1.0 / self.concentration, size=means.shape))

    def log_prob(self, x):
        """log p(x) [N] of counts [N, columns], nats."""
        share = self.concentration / (self.concentration + self.means)
        of_classes = scipy.stats.nbinom.logpmf(x[:, np.newaxis], self.concentration, share).sum(axis=-1)
        return scipy.special.logsumexp(of_classes + np.log(self.weights), axis=1)


def main(name):
    """Writes the files, and says what a model can be measured by."""
    try:
        write(pathlib.Path(_WORKDIR.value), _SEED.value)
    except OSError as unwritable:
        console.fail(name, unwritable)


def write(folder, seed):
    """The same, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    references = {}

    def save(name, **parts):
        with whole(folder / f"{name}.npz") as partial:
            np.savez(partial, **parts)

    digits = split(np.uint8(np.round(sklearn.datasets.load_digits().images * (255 / 16))), seed)
    save("digits_bytes", **{part: rows[..., np.newaxis] for part, rows in digits.items()})
    references["digits_bytes, bits per dimension"] = compressed(digits["test"])

    photographs = patches(np.stack(sklearn.datasets.load_sample_images().images))
    save("photographs", **photographs)
    references["photographs, bits per dimension"] = compressed(photographs["test"])

    cells = split(np.float32(sklearn.datasets.load_breast_cancer().data), seed)
    save("breast_cancer", **cells)
    wide = [np.float64(cells[part]) for part in ("train", "test")]
    references["breast_cancer, log p(x)"] = {"one Normal with full covariance": normal_log_prob(*wide)}

    truth = MixtureOfCounts(classes=6, columns=50, seed=seed)
    counts = split(truth.sample(2000, seed + 1), seed)
    save("counts", **counts)
    references["counts, log p(x)"] = {"the truth": float(truth.log_prob(counts["test"]).mean())}

    for title, values in references.items():
        for what, value in values.items():
            print(f"{title + ' of ' + what:64}{value:10.3f}")
    training.write_json(folder / "references.json", references)
    print(f"The files are in {folder}.")


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("kinds_main", sys.argv[1:])
