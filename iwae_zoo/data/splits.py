"""Cutting one array into three."""

import numpy as np

from iwae_zoo._rows import taken

__all__ = ["SPLITS", "filled", "split", "three"]

SPLITS = ("train", "validation", "test")
_SEED = 20180213


def split(examples, validation_share, test_share):
    """Permutes by a fixed seed and cuts; RandomState's stream is the one numpy promises never to change."""
    order = np.random.RandomState(_SEED).permutation(len(examples))
    test = round(test_share * len(examples))
    validation = round(validation_share * len(examples))
    train = len(examples) - validation - test
    parts = order[:train], order[train : train + validation], order[train + validation :]
    return tuple(taken(examples, part) for part in parts)


def filled(splits, where):
    """The splits, if there is an example in each.

    Raises:
      ValueError: if not; the message names what is at `where`.
    """
    for name, part in zip(SPLITS, splits, strict=True):
        if not len(part):
            sizes = ", ".join(map(str, map(len, splits)))
            raise ValueError(f"{where} has too few examples: nothing is left for the {name} split, of sizes {sizes}.")
    return splits


def three(arrays):
    """The three splits, by `split` where one is missing: each is a tenth of "train" then.

    Args:
      arrays: dict with "train" and, where there are any, "validation" and "test".

    Returns:
      Arrays, or `Rows`, of the training, validation and test examples.
    """
    if len(arrays) == 1:
        return split(arrays["train"], 0.1, 0.1)
    arrays = dict(arrays)
    for name in SPLITS[1:]:
        if name not in arrays:
            arrays["train"], arrays[name], _ = split(arrays["train"], 0.1, 0.0)
    return tuple(arrays[name] for name in SPLITS)
