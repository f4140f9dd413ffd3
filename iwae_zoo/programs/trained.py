"""Which trained model a program asks: that of a file, or a preset with weights."""

import os

from absl import flags

from iwae_zoo import presets, training
from iwae_zoo._files import load_model
from iwae_zoo.model.autoencoder import ImportanceWeightedAutoencoder

__all__ = ["check", "config", "define", "load"]


def define(values, path="model", what="Path of a model.keras, as train_main.py leaves it."):
    """Defines --preset, and the flag of a path that it is in place of.

    Args:
      values: `absl.flags.FlagValues` of the program.
      path: str, name of the flag.
      what: str, help of the flag.

    Returns:
      The holders of both flags.
    """
    known = ", ".join(presets.trained.names())
    return (
        flags.DEFINE_string(path, None, what, flag_values=values),
        flags.DEFINE_string(
            "preset", None, f"A preset with trained weights, instead of --{path}: {known}.", flag_values=values
        ),
    )


def check(path, preset):
    """Raises ValueError unless exactly one of the two flags is given; and if there is no such model, as `presets.card`.

    Args:
      path: holder of the flag of the path.
      preset: holder of --preset.
    """
    if (path.value is None) == (preset.value is None):
        received = ", ".join(f"--{flag.name}={flag.value}" for flag in (path, preset) if flag.value) or "neither"
        raise ValueError(f"one of --{path.name} and --preset is needed: received {received}.")
    if preset.value is not None:
        presets.card(preset.value)


def load(path, preset):
    """The model that the flags of `check` name.

    Raises:
      ValueError: as `check`, or if the weights or the file cannot be used.
      FileNotFoundError: if there is no model file.
    """
    check(path, preset)
    if preset.value is not None:
        return presets.load(preset.value)
    if not os.path.isfile(path.value):
        raise FileNotFoundError(f"There is no model file {path.value!r}.")
    model = load_model(path.value, compile=False)  # Optimizers may be for one device, and this one may be another.
    if not isinstance(model, ImportanceWeightedAutoencoder):
        raise ValueError(f"{path.value} holds a {type(model).__name__} and no model of this library.")
    return model


def config(path, preset):
    """The configuration of the run that trained it: dict of the fields of `training.Config`; empty if nothing says."""
    if preset.value is not None:
        return presets.card(preset.value)["config"]
    beside = os.path.join(os.path.dirname(path.value), "config.json")
    return training.read_config(beside) if os.path.isfile(beside) else {}
