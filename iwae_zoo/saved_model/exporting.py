"""Writes a model as the next version of a served one: its signatures, its card, and requests to warm it up with."""

import dataclasses
import json
import pathlib
import shutil
import tempfile
import uuid

import numpy as np
import tensorflow as tf

from iwae_zoo._files import load_model, read_json
from iwae_zoo._version import __version__
from iwae_zoo.distributions import fusion, likelihoods
from iwae_zoo.estimation import importance, walks
from iwae_zoo.model import particles
from iwae_zoo.model.autoencoder import ImportanceWeightedAutoencoder
from iwae_zoo.saved_model import versions
from iwae_zoo.saved_model.exported import CARD
from iwae_zoo.saved_model.signatures import Settings, signatures_of

__all__ = ["export", "export_run"]


def export(
    model,
    directory,
    num_samples=1000,
    max_num_samples=10_000,
    *,
    seed=0,
    num_temperatures=None,
    num_chains=None,
    num_leapfrog_steps=None,
    tile_rows=1,
    particle_chunk=None,
    card=None,
):
    """Writes the next version of a served model; a reader of `directory` sees all of it or nothing.

    Args:
      model: `ImportanceWeightedAutoencoder`, built.
      directory: path of the served model; versions are integer folders in it.
      num_samples: int, particles for a row of `serving_default`.
      max_num_samples: int, most particles for a row of any request: a larger request is clamped to it, and the answer
        says how many were used.
      seed: int, of the rows of `serving_default`.
      num_temperatures: int, of `annealing.estimate_log_prob`, for the annealed signatures: what a row of theirs costs.
      num_chains: int, the same.
      num_leapfrog_steps: int, the same.
      tile_rows: int, rows of the signatures that weigh particles that are computed at once, 1 or a multiple of 48: 1
        for a CPU, more for a GPU. A request of fewer rows costs a whole tile.
      particle_chunk: int, most particles of a row that are decoded at once; "auto" for as many as there is free memory
        for here and now, by default at most 2500. The model card has the number.
      card: optional dict, JSON-compatible, that is added to the model card.

    Returns:
      pathlib.Path of the new version's folder.

    Raises:
      ValueError: on a number out of range, a model that is not built or has weights that are NaN, or one whose rows
        cannot be in tiles.
      OSError: if the directory cannot be written; then there is no new version.

    #### References
    TensorFlow Serving. SavedModel warmup; RESTful API.
    https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    if not model.built:
        raise ValueError("The model is not built: train it, or call model.build((None, *data_shape)).")
    if any(np.isnan(weight).any() for weight in model.get_weights()):
        raise ValueError("The model's weights are NaN: restore those from before training diverged.")
    budget = walks.Budget.of("laplace", num_temperatures, num_chains, num_leapfrog_steps)
    settings = Settings.of(model, num_samples, max_num_samples, seed, budget, tile_rows, particle_chunk)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # TensorFlow Serving takes no notice of names that are not integers.
    partial = directory / f".partial-{uuid.uuid4().hex}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            description = {**_card(model, settings), **(card or {})}
            card_path = pathlib.Path(folder) / CARD
            card_path.write_text(json.dumps(description, indent=2) + "\n")
            _write(model, partial, card_path, settings)
        return versions.publish(partial, directory)
    except tf.errors.OpError as error:
        reason = error.message.partition("\n")[0]
        raise OSError(f"No version can be written to {directory}: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def export_run(workdir, directory, num_samples=1000, max_num_samples=10_000, **options):
    """Exports the model of a training run, with its configuration and test results in the model card.

    Args:
      workdir: path of a work directory that `train_main.py` has left.
      directory: as in `export`.
      num_samples: the same.
      max_num_samples: the same.
      **options: `seed`, `num_temperatures`, `num_chains`, `num_leapfrog_steps`, `tile_rows` and `particle_chunk` of
        `export`.

    Returns:
      pathlib.Path of the new version's folder.

    Raises:
      ValueError: if the work directory holds no trained model, or as `export`.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "model.keras").is_file() or not (workdir / "config.json").is_file():
        raise ValueError(
            f"{workdir} holds no trained model (model.keras and config.json). Train one with train_main.py."
        )
    card = read_json(workdir / "config.json")
    if (workdir / "evaluation.json").is_file():
        card["evaluation"] = read_json(workdir / "evaluation.json")
    model = load_model(workdir / "model.keras")
    if not isinstance(model, ImportanceWeightedAutoencoder):
        raise ValueError(f"{workdir} holds a {type(model).__name__} and no model of this library.")
    return export(model, directory, num_samples, max_num_samples, **options, card=card)


def _write(model, path, card_path, settings):
    module = tf.Module()
    # Tracked once, here; the functions only capture them.
    module.weights = [variable.value for variable in model.weights]
    module.card = tf.saved_model.Asset(str(card_path))
    with fusion.portable():
        signatures = signatures_of(model, settings)
        tf.saved_model.save(module, str(path), signatures=signatures)
    shutil.copy(card_path, path / CARD)
    _write_warm_up(path, signatures)


def _card(model, settings):
    return {
        "iwae_zoo": __version__,
        "objective": model.objective.get_config(),
        "input": {
            "x": f"float32 [batch, {', '.join(map(str, model.data_shape))}]",
            "values": f"in the support of the decoder's likelihood: {likelihoods.support(model.decoder)}",
            "missing": "NaN" if particles.takes_missing(model.decoder) else None,
            "columns": [dataclasses.asdict(c) for c in likelihoods.columns(model.decoder)],
            "outside": "log_prob is -inf and in_support false, for that row alone",
        },
        "latent_size": int(model.latent_size),
        **{name: value for name, value in settings._asdict().items() if name != "budget"},
        "annealing": settings.budget._asdict(),
        "trust": (
            f"log_prob is right to within standard_error where pareto_k is at most {importance.PARETO_K_LIMIT}; of "
            f"log_prob_annealed, where ess is at least {importance.least_ess(settings.budget.num_chains):.3g}"
        ),
        "units": "nats",
    }


def _write_warm_up(path, signatures):
    """One request for each signature, so that the first client does not wait for what is set up lazily."""
    from tensorflow_serving.apis import prediction_log_pb2

    folder = path / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for name, function in signatures.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = name
            for spec in function.input_signature:  # Zeros; of particles one is drawn all the same.
                value = np.zeros([1, *spec.shape[1:]], spec.dtype.as_numpy_dtype)
                request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())
