"""Particles that grow over a run: few at first, when any gradient will do, and as many as the objective has at last."""

from typing import NamedTuple

import keras

__all__ = ["Stage", "Stages", "of_epochs"]


class Stage(NamedTuple):
    """A part of a run.

    Attributes:
      first_epoch: int, the epoch that it begins with, from 0.
      m: int, number of groups of particles.
      k: int, number of particles in a group.
    """

    first_epoch: int
    m: int
    k: int


def of_epochs(text, epochs, m, k):
    """The stages of a run.

    Args:
      text: str, MxK:SHARE of the earlier stages with commas between them: groups, particles in a group, and the share
        of the epochs; None for none. What is left of the epochs has m and k.
      epochs: int, of the whole run.
      m: int, groups of the last stage.
      k: int, particles in a group of the last stage.

    Returns:
      List of `Stage`; the last ends with the run.

    Raises:
      ValueError: on another text, shares that leave nothing for the last stage, or a stage without an epoch.

    #### Examples
    >>> of_epochs("1x5:0.5,2x8:0.25", epochs=40, m=8, k=8)
    [Stage(first_epoch=0, m=1, k=5), Stage(first_epoch=20, m=2, k=8), Stage(first_epoch=30, m=8, k=8)]
    """
    stages, done = [], 0.0
    for part in text.split(",") if text else ():
        m_of_stage, k_of_stage, share = _parsed(part, text)
        stages.append(Stage(round(done * epochs), m_of_stage, k_of_stage))
        done += share
    stages.append(Stage(round(done * epochs), m, k))
    ends = [stage.first_epoch for stage in stages[1:]] + [epochs]
    for stage, end in zip(stages, ends, strict=True):
        if end <= stage.first_epoch:
            raise ValueError(
                f"particle_schedule={text!r} leaves no epoch of {epochs} for {stage.m}x{stage.k}: each stage needs "
                f"one, and the last, {m}x{k}, has what the others leave."
            )
    return stages


def _parsed(part, text):
    try:
        particles, share = part.split(":")
        m, k = map(int, particles.split("x"))
        share = float(share)
        if not (m >= 1 and k >= 1 and 0.0 < share < 1.0):
            raise ValueError
    except ValueError:
        raise ValueError(
            "particle_schedule must be MxK:SHARE with commas between them, such as 1x5:0.5 for M = 1 and K = 5 in the "
            f"first half of the epochs: received {text!r}."
        ) from None
    return m, k, share


class Stages(keras.callbacks.Callback):
    """Changes the model's objective when an epoch begins a stage; weights and optimizers go on as they are.

    Args:
      objectives: list of pairs (first epoch, `Objective`), in order, the first from epoch 0.
    """

    def __init__(self, objectives):
        super().__init__()
        self._objectives = objectives

    def on_epoch_begin(self, epoch, logs=None):
        objective = [objective for first_epoch, objective in self._objectives if first_epoch <= epoch][-1]
        if self.model.objective != objective:
            self.model.follow(objective)
