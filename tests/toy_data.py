"""A few examples of every kind of data."""

import numpy as np

from iwae_zoo import data
from iwae_zoo.columns import Column
from iwae_zoo.distributions import likelihoods


def examples(kind, count, shape=(3, 3, 1), seed=0):
    """Float32 array [count, *shape]; columns depend on each other."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(count, *(1 for _ in shape)))
    noisy = latent + 0.5 * rng.normal(size=(count, *shape))
    x = {
        "binary": lambda: noisy > 0.3,
        "intensity": lambda: np.clip(0.5 + 0.3 * noisy, 0, 1),
        "byte": lambda: np.clip(np.rint(128 + 60 * noisy), 0, 255),
        "count": lambda: rng.poisson(np.exp(0.5 + noisy)),
        "class": lambda: np.clip(np.rint(1 + noisy), 0, 2),
        "real": lambda: 7 + 30 * noisy,
        "positive": lambda: 100 * np.exp(noisy),
        "table": lambda: table(noisy, rng),
    }[kind]()
    return x.astype("float32")


# A table: one column of each kind, the values of whose rows depend on each other.
COLUMNS = (
    Column("size", "real"),
    Column("price", "positive"),
    Column("visits", "count"),
    Column("buys", "binary"),
    Column("town", "categorical", ("Bonn", "Oslo", "Rome")),
)


def table(noisy, rng):
    """Values of `COLUMNS` from numbers [N, 5]; a third of them is missing."""
    a, b, c, d, e = noisy.T
    values = [7 + 30 * a, 100 * np.exp(b), rng.poisson(np.exp(0.5 + c)), d > 0.3, np.clip(np.rint(1 + e), 0, 2)]
    return np.where(rng.random(noisy.shape) < 1 / 3, np.nan, np.stack(values, axis=1))


def dataset(likelihood, shape=(3, 3, 1), count=100):
    """A `Dataset` for a likelihood."""
    kind = likelihoods.get(likelihood).kinds[0]
    parts = [examples(kind, size, shape, seed) for seed, size in enumerate((count, 20, 20))]
    return data.Dataset("toy", *parts, kind, binarize=False, columns=COLUMNS if kind == "table" else ())
