"""Cutting one array into three."""

import numpy as np

__all__ = ["split"]

_SEED = 20180213


def split(examples, validation_share, test_share):
    """Permutes by a fixed seed and cuts; RandomState's stream is the one numpy promises never to change."""
    order = np.random.RandomState(_SEED).permutation(len(examples))
    test = round(test_share * len(examples))
    validation = round(validation_share * len(examples))
    train = len(examples) - validation - test
    return examples[order[:train]], examples[order[train : train + validation]], examples[order[train + validation :]]
