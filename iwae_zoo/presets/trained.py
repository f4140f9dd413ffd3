"""Presets that come with weights: where the files are, what their cards say, and back to a model.

Beside each other in the folder `weights` there are, of a preset NAME,

    NAME.weights.h5   the weights, float32, as Keras writes them
    NAME.json         the card: what was run on which data, what it scores, the weights' checksum, and the networks as
                      Keras describes them, with all that was fitted to the training data; and a checksum of its own
"""

import hashlib
import json
import pathlib

from iwae_zoo import objectives
from iwae_zoo._checks import look_up
from iwae_zoo._files import whole, write_text
from iwae_zoo.model import ImportanceWeightedAutoencoder
from iwae_zoo.presets import table

__all__ = ["FOLDER", "card", "is_made", "load", "names", "public", "revise", "save"]

FOLDER = pathlib.Path(__file__).parent / "weights"
# What of a card is needed to build the model, and says nothing to people.
_BUILT_FROM = ("model", "data_shape")
_AGAIN = "Install the package again, or run python studies/train_presets_main.py --preset={name}."


def names():
    """Names of the presets that weights were, or are to be, trained for."""
    return tuple(name for name, preset in table.TABLE.items() if preset.training is not None)


def is_made(name):
    """Whether the weights of a preset are there."""
    return _paths(name)[1].is_file()


def card(name):
    """What is known of a preset's weights.

    Args:
      name: one of `names()`.

    Returns:
      dict: "preset", "summary", "data" (what the splits are), "config" (the fields of `training.Config`), "versions",
      "epochs", "hours", "evaluation" (of the test set, nats), "first" (of its first rows, for tests), "weights"
      ("file", "sha256", "count"), "data_shape" and "model", which `load` builds the networks from, and "sha256" of all
      else in the card.

    Raises:
      ValueError: on an unknown name, a preset that has no weights, or a card that is damaged or another preset's.

    #### Examples
    >>> card("digits_miwae")["config"]["objective"]
    'miwae'
    """
    if table.get(name).training is None:
        look_up(
            names(),
            name,
            f"preset with weights (presets.build({name!r}, ...) builds an untrained model)",
        )
    path = _paths(name)[1]
    if not path.is_file():
        made = [known for known in names() if is_made(known)]
        raise ValueError(
            f"The weights of the preset {name!r} have not been trained yet: python studies/train_presets_main.py "
            f"--preset={name} does it. Those with weights: {', '.join(made)}."
        )
    try:
        found = json.loads(path.read_text())
        whole = found["sha256"] == _checksum(found) and found["preset"] == name
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the card of a preset: {_AGAIN.format(name=name)}") from error
    if not whole:
        raise ValueError(f"{path} is damaged, or the card of another preset: {_AGAIN.format(name=name)}")
    return found


def public(found):
    """The part of a card that is for people."""
    return {key: value for key, value in found.items() if key not in _BUILT_FROM}


def load(name, objective=None, seed=None, cls=ImportanceWeightedAutoencoder):
    """The model of a preset with its trained weights.

    Args:
      name: one of `names()`.
      objective: an `Objective`, or the name of one, with the preset's `m` and `k`, for further training; by default the
        one it was trained on.
      seed: int, for further training; by default the one of its training.
      cls: `ImportanceWeightedAutoencoder`, or a subclass of it with the same arguments.

    Returns:
      A `cls`, built, not compiled.

    Raises:
      ValueError: as `card`, or on weights that are damaged or another model's.
    """
    found = card(name)
    path = _paths(name)[0]
    received = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if received != found["weights"]["sha256"]:
        raise ValueError(
            f"{path} is damaged, or not what its card speaks of: its SHA-256 is {received}, and should be "
            f"{found['weights']['sha256']}. {_AGAIN.format(name=name)}"
        )
    config = dict(found["model"])
    if objective is not None:
        preset = table.get(name)
        config["objective"] = objectives.get(objective, m=preset.m, k=preset.k).get_config()
    if seed is not None:
        config["seed"] = seed
    model = cls.from_config(config)
    model.build((None, *found["data_shape"]))
    try:
        model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} holds the weights of another model than the preset {name!r}: {_AGAIN.format(name=name)}"
        ) from error
    return model


def save(model, name, found, folder=None):
    """Writes a preset's weights and card; each file appears whole, the card last.

    Args:
      model: `ImportanceWeightedAutoencoder`, built.
      name: str.
      found: dict, the card but for "preset", "summary", "weights", "data_shape" and "model".
      folder: path. Default: the package's own.

    Returns:
      dict, the card.
    """
    weights_path, card_path = _paths(name, folder)
    weights_path.parent.mkdir(parents=True, exist_ok=True)
    # Of a compiled model the file would hold the optimizers too.
    plain = ImportanceWeightedAutoencoder.from_config(model.get_config())
    plain.build((None, *model.data_shape))
    plain.set_weights(model.get_weights())
    with whole(weights_path) as partial:
        plain.save_weights(partial)
    written = {
        "preset": name,
        "summary": table.get(name).summary,
        **found,
        "weights": {
            "file": weights_path.name,
            "sha256": hashlib.sha256(weights_path.read_bytes()).hexdigest(),
            "count": plain.count_params(),
        },
        "data_shape": list(model.data_shape),
        "model": plain.get_config(),
    }
    return _write(written, card_path)


def revise(name, found):
    """Writes the card in the package again, beside weights that stay as they are.

    Args:
      name: one of `names()`.
      found: dict, what of the card is new.

    Returns:
      dict, the card.

    Raises:
      ValueError: as `card`.
    """
    return _write({**card(name), **found}, _paths(name)[1])


def _write(found, path):
    """Writes a card, which appears whole, with its checksum; returns it as `card` reads it."""
    text = json.dumps(found | {"sha256": _checksum(found)}, indent=1, allow_nan=False)
    write_text(path, text + "\n")
    return json.loads(text)


def _checksum(found):
    """SHA-256 of what a card says, but for its own; how it is laid out and ordered does not count."""
    said = {key: value for key, value in found.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _paths(name, folder=None):
    """Paths of the weights and of the card."""
    folder = pathlib.Path(folder or FOLDER)
    return folder / f"{name}.weights.h5", folder / f"{name}.json"
