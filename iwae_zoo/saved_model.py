"""Exporting: a trained model as a SavedModel that answers log p(x) without Python, Keras or TensorFlow Probability.

Every signature works row by row: each input has a leading batch axis, and a row's answer depends on that row alone,
bit for bit, because each row is computed by itself in tensors of the same shapes. Randomness is stateless, from the
row's own seed. Memory is bounded by the chunk of particles, whatever a request asks for. With `tile_rows`, which is
chosen at export, log p(x) and what is annealed are computed a tile of rows at once, for the same promise.

    signature                  inputs                outputs, per row
    serving_default            x                     log_prob, standard_error, ess, pareto_k, elbo, in_support,
                                                     num_samples
    log_prob                   x, num_samples, seed  the same
    log_prob_annealed          x, seed               the same, and method: by annealing
    encode                     x                     mean and stddev of q(z | x)
    posterior_sample           x, num_samples, seed  z, by sampling-importance-resampling, and its ess
    posterior_sample_annealed  x, seed               z, the end of an annealed chain, and the chains' ess
    reconstruct                x                     mean of p(x | z) at the mean of q(z | x)
    decode                     z                     mean of p(x | z)
    sample                     seed                  x, drawn from the model, and the mean of its p(x | z)
    impute                     x, num_samples, seed  of models that take missing values, NaN: mean and stddev of what is
                                                     missing given the rest, a draw, the point to put there and its
                                                     probability if it is a class; log_prob of the rest, and as above
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import checked_seed, integer, look_up
from iwae_zoo._files import load_model
from iwae_zoo._precision import tensor_float_32
from iwae_zoo._tracing import Networks, read_once
from iwae_zoo._version import __version__
from iwae_zoo.distributions import fusion, likelihoods
from iwae_zoo.distributions.moments import point
from iwae_zoo.estimation import annealing, importance, imputation, likelihood, psis, resampling, rows, tiles, walks
from iwae_zoo.model import memory, particles

__all__ = ["Exported", "export", "export_run"]

CARD = "model_card.json"
# The largest integers of TensorFlow's types.
_INT32, _INT64 = 2**31 - 1, 2**63 - 1
# Rows of a batch that are computed at once, each with a chunk of particles in memory.
_PARALLEL_ROWS = 4


class Tile(NamedTuple):
    """What the signatures of log p(x) compute at once, fixed at export.

    Attributes:
      tile_rows: int, number of rows.
      particle_chunk: int, particles of each.
    """

    tile_rows: int
    particle_chunk: int

    @classmethod
    def of(cls, model, tile_rows, particle_chunk, num_samples, max_num_samples):
        """That of the arguments of `export`; raises ValueError on those that are none."""
        chunk = likelihood.default_chunk(num_samples)
        if particle_chunk not in (None, "auto"):
            chunk = min(integer("particle_chunk", particle_chunk), max_num_samples)
        rows = tiles.choose(tiles.checked(tile_rows), model, chunk)
        if particle_chunk == "auto":
            with fusion.portable():
                of_particle = memory.bytes_per_particle(model)
            chunk = memory.fitting_chunk(max(rows, _PARALLEL_ROWS), of_particle, chunk)
        return cls(rows, chunk)


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
      tile_rows: int, rows of the signatures that weigh particles that are computed at once, 1 or a multiple of 16: 1
        for a CPU, more for a GPU. A request of fewer rows costs a whole tile.
      particle_chunk: int, most particles of a row that are decoded at once; "auto" for as many as there is free memory
        for here and now, by default at most 2500. The model card has the number.
      card: optional dict, JSON-compatible, that is added to the model card.

    Returns:
      pathlib.Path of the new version's folder.

    Raises:
      ValueError: on a number out of range, a model that is not built, or one whose rows cannot be in tiles.
      OSError: if the directory cannot be written; then there is no new version.

    #### References
    TensorFlow Serving. SavedModel warmup; RESTful API.
    https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    num_samples = integer("num_samples", num_samples)
    max_num_samples = integer("max_num_samples", max_num_samples)
    seed = integer("seed", seed, least=0)
    if num_samples > max_num_samples:
        raise ValueError(f"num_samples must be at most max_num_samples: received {num_samples} and {max_num_samples}.")
    if max_num_samples > _INT32:
        raise ValueError(f"max_num_samples must be at most 2^31 - 1: received {max_num_samples}.")
    if seed > _INT64:
        raise ValueError(f"seed must be at most 2^63 - 1: received {seed}.")
    if not model.built:
        raise ValueError("The model is not built: train it, or call model.build((None, *data_shape)).")
    budget = walks.Budget.of("laplace", num_temperatures, num_chains, num_leapfrog_steps)
    tile = Tile.of(model, tile_rows, particle_chunk, num_samples, max_num_samples)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # TensorFlow Serving takes no notice of names that are not integers.
    partial = directory / f".partial-{uuid.uuid4().hex}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            description = _card(model, num_samples, max_num_samples, seed, budget, tile, card)
            card_path = pathlib.Path(folder) / CARD
            card_path.write_text(json.dumps(description, indent=2) + "\n")
            _write(model, partial, card_path, num_samples, max_num_samples, seed, budget, tile)
        return _publish(partial, directory)
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
    card = _read_json(workdir / "config.json")
    if (workdir / "evaluation.json").is_file():
        card["evaluation"] = _read_json(workdir / "evaluation.json")
    model = load_model(workdir / "model.keras")
    return export(model, directory, num_samples, max_num_samples, **options, card=card)


def _read_json(path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


class Exported:
    """An exported model, loaded by its path alone.

    Args:
      path: folder of a version, or of the served model: then its largest version.

    Raises:
      ValueError: if there is no SavedModel, or it is none of ours.
    """

    def __init__(self, path):
        path = pathlib.Path(path)
        versions = _versions(path) if path.is_dir() else {}
        self.path = versions[max(versions)] if versions else path
        if not (self.path / "saved_model.pb").is_file():
            raise ValueError(f"There is no SavedModel in {path}: neither saved_model.pb nor a version with one.")
        try:
            self._loaded = tf.saved_model.load(str(self.path))
        except (tf.errors.OpError, LookupError, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"The SavedModel in {self.path} is damaged: {reason}") from error
        self.signatures = self._loaded.signatures
        if "log_prob" not in self.signatures:
            known = ", ".join(sorted(self.signatures))
            raise ValueError(f"The SavedModel in {self.path} has no signature log_prob; it has {known}.")

    @property
    def data_shape(self):
        """Shape of one x."""
        return tuple(self.signatures["log_prob"].structured_input_signature[1]["x"].shape[1:])

    @tensor_float_32(False)
    def estimate_log_prob(self, x, num_samples=1000, seed=0, first_row=0, method=likelihood.IMPORTANCE):
        """As `likelihood.estimate_log_prob` of the model that was exported, with the same random numbers.

        Rows whose chains do not agree are not walked again along a longer path: an export has one, of its
        `num_temperatures`.

        The numbers depend on the particles of a chunk: where `num_samples` is above the model card's `particle_chunk`,
        they are those of `likelihood.estimate_log_prob` with that as its `chunk_size`.

        Args:
          x: array [B, ...].
          num_samples: int; the model clamps it to its `max_num_samples`.
          seed: int, 0 <= seed < 2^31.
          first_row: int, index of the first example within a larger data set.
          method: as in `likelihood.estimate_log_prob`.

        Returns:
          `likelihood.Estimate`.

        Raises:
          ValueError: if x has another shape, a number is out of range, the method is unknown, or the model cannot be
            annealed and has to be.
          MemoryError: if the device has no memory for what the export decodes at once.
        """
        integer("num_samples", num_samples)
        look_up(likelihood.METHODS, method, "method of estimating log p(x)")
        if "log_prob_annealed" not in self.signatures and method != likelihood.IMPORTANCE:
            if method == likelihood.ANNEALED:
                raise ValueError(f"The SavedModel in {self.path} has no signature log_prob_annealed: export it again.")
            method = likelihood.IMPORTANCE
        x = np.asarray(x, np.float32)
        if x.shape[1:] != self.data_shape:
            raise ValueError(
                f"x must have shape [B, {', '.join(map(str, self.data_shape))}]: received {list(x.shape)}."
            )
        seeds = (rows.numbered(len(x), first_row).astype(np.int64) << 32) + checked_seed(seed)

        def ask(name, some, **inputs):
            try:
                answer = self.signatures[name](x=tf.constant(x[some]), seed=tf.constant(seeds[some]), **inputs)
            except tf.errors.ResourceExhaustedError:
                raise MemoryError(
                    f"The device is out of memory for {self.path}. Export the model again on this machine with "
                    "particle_chunk='auto' (--particle_chunk=auto), or for a smaller tile_rows."
                ) from None
            return {name: answer[name].numpy() for name in importance.OUTPUTS}

        everything = slice(None)
        sampled = ask("log_prob", everything, num_samples=tf.fill([len(x)], np.int32(min(num_samples, _INT32))))
        sampled = likelihood.Estimate.of_importance(**sampled)
        return likelihood.climb(sampled, lambda some: ask("log_prob_annealed", some), method)


def _write(model, path, card_path, num_samples, max_num_samples, seed, budget, tile):
    module = tf.Module()
    # Tracked once, here; the functions only capture them.
    module.weights = [variable.value for variable in model.weights]
    module.card = tf.saved_model.Asset(str(card_path))
    with fusion.portable():
        signatures = _signatures(model, num_samples, max_num_samples, seed, budget, tile)
        tf.saved_model.save(module, str(path), signatures=signatures)
    shutil.copy(card_path, path / CARD)
    _write_warm_up(path, signatures)


def _versions(directory):
    """Its versions: dict from number to path. TensorFlow Serving takes no other names."""
    numbers = {path: int(path.name) for path in directory.iterdir() if re.fullmatch("[0-9]{1,19}", path.name)}
    return {number: path for path, number in numbers.items() if number <= _INT64}


def _publish(partial, directory):
    """Renames the finished folder to the next version."""
    while True:
        target = directory / str(max(_versions(directory), default=0) + 1)
        try:
            os.rename(partial, target)
            return target
        except OSError:
            if not target.exists():  # Otherwise another export was faster: the next number then.
                raise


def _signatures(model, default_samples, max_num_samples, default_seed, budget, tile):
    networks, weights = Networks.of(model), model.weights
    tile_rows, chunk_size = tile
    capacity = psis.capacity(max_num_samples)
    posterior = model.encoder.posterior(tf.zeros([1, *model.data_shape]))
    x = tf.TensorSpec([None, *model.data_shape], tf.float32, "x")
    z = tf.TensorSpec([None, model.latent_size], posterior.dtype, "z")
    num_samples = tf.TensorSpec([None], tf.int32, "num_samples")
    seed = tf.TensorSpec([None], tf.int64, "seed")
    vector, scalar = tf.TensorSpec([model.latent_size]), tf.TensorSpec([])
    image = tf.TensorSpec(model.data_shape)

    def of_one_length(inputs, columns):
        """The columns; the graph refuses those of which one has more rows than another, before it looks at any."""
        count = tf.shape(columns[0])[0]
        checks = [
            tf.debugging.assert_equal(
                tf.shape(column)[0], count, f"{spec.name} must have as many rows as {inputs[0].name}"
            )
            for spec, column in zip(inputs[1:], columns[1:], strict=True)
        ]
        with tf.control_dependencies(checks):
            return [tf.identity(column) for column in columns]

    def by_rows(function, inputs, outputs):
        """A function of batches that computes each row by itself, so that rows cannot touch each other."""

        def batch(*columns):
            columns = of_one_length(inputs, columns)
            with read_once(weights):
                return tf.map_fn(
                    lambda row: function(*row),
                    columns,
                    fn_output_signature=outputs,
                    parallel_iterations=_PARALLEL_ROWS,
                )

        return tf.function(batch, input_signature=inputs, autograph=False)

    def by_tiles(function, inputs, outputs):
        """The same of a function of tiles."""
        if tile_rows == 1:
            return by_rows(function, inputs, outputs)

        def batch(*columns):
            columns = of_one_length(inputs, columns)
            with read_once(weights):
                return rows.in_tiles(function, columns, outputs, tile_rows)

        return tf.function(batch, input_signature=inputs, autograph=False)

    def once(function):
        """The same function, traced once for all signatures that call it: of a row, or of a tile of rows."""

        @tf.function(autograph=False)
        def traced(values, *arguments):
            with read_once(weights, values):
                return function(*arguments)

        return lambda *arguments: traced([weight.value for weight in weights], *arguments)

    def clamped(count):
        return tf.clip_by_value(count, 1, max_num_samples)

    def of_rows(value):
        """What the rows of a tile have in common, for each of them."""
        return tf.fill([] if tile_rows == 1 else [tile_rows], value)

    @once
    def estimate(x, count, seed):
        tolerance = tf.constant(0.0, tf.float64)
        found = likelihood.stream(networks, x, clamped(count), _unpacked(seed), tolerance, chunk_size, capacity)
        return {name: tf.cast(v, tf.float32) if v.dtype == tf.float64 else v for name, v in found.items()}

    estimated = {name: scalar if spec.dtype == tf.float64 else spec for name, spec in importance.OUTPUTS.items()}
    betas = tf.constant(budget.betas)

    @once  # Of the two signatures, the one does not look at z, nor waits for it.
    def walk(x, seed):
        return walks.sample(networks, x, seed, budget, betas)

    def estimate_annealed(x, seed):
        row = walk(x, _unpacked(seed))
        # The ELBO is the encoder's, as everywhere.
        answer = estimate(x, of_rows(default_samples), seed)
        answer |= {name: tf.cast(row[name], spec.dtype) for name, spec in estimated.items() if name in row}
        return {**answer, "num_samples": of_rows(budget.num_chains), "method": of_rows(importance.ANNEALED)}

    def impute(x, count, seed):
        drawn = imputation.row(networks, x, clamped(count), _unpacked(seed), chunk_size, capacity, 1)
        answer = {name: tf.cast(drawn[name], spec.dtype) for name, spec in imputed.items() if name in drawn}
        return {**answer, "draw": drawn["draws"][..., 0, *[slice(None)] * len(model.data_shape)]}

    def encode(x):
        q = networks.encoder.posterior(x[tf.newaxis])
        return {"mean": _single(q.mean()), "stddev": _single(q.stddev())}

    def posterior_sample(x, count, seed):
        drawn = resampling.resample(networks, x, clamped(count), _unpacked(seed), chunk_size, capacity)
        return {name: tf.cast(value, tf.float32) for name, value in drawn.items()}

    def posterior_sample_annealed(x, seed):
        # The first of the draws that `annealing.sample_posterior` makes.
        drawn = walk(x, particles.derive_seed(_unpacked(seed), 0))
        return {name: tf.cast(drawn[name], tf.float32) for name in ("z", "ess")}

    def decode(z):
        return {"mean": _single(networks.decoder.likelihood(z[tf.newaxis]).mean())}

    def reconstruct(x):
        return decode(point(networks.encoder.posterior(x[tf.newaxis]))[0])

    def sample(seed):
        pair = _unpacked(seed)
        drawn = networks.prior.distribution().sample(seed=particles.derive_seed(pair, 0))
        p = networks.decoder.likelihood(drawn[tf.newaxis])
        return {"x": _single(p.sample(seed=particles.derive_seed(pair, 1))), "mean": _single(p.mean())}

    def default(x):
        return estimate(x, of_rows(default_samples), of_rows(tf.constant(default_seed, tf.int64)))

    imputed = {name: image for name in ("mean", "stddev", "point", "probability", "draw")}
    imputed |= {name: spec for name, spec in estimated.items() if name != "elbo"}
    holes = {"impute": by_tiles(impute, [x, num_samples, seed], imputed)}
    annealed = {
        "log_prob_annealed": by_tiles(
            estimate_annealed, [x, seed], {**estimated, "method": tf.TensorSpec([], tf.string)}
        ),
        "posterior_sample_annealed": by_tiles(posterior_sample_annealed, [x, seed], {"z": vector, "ess": scalar}),
    }
    return {
        **(annealed if annealing.is_possible(model) else {}),
        **(holes if particles.takes_missing(model.decoder) else {}),
        "serving_default": by_tiles(default, [x], estimated),
        "log_prob": by_tiles(estimate, [x, num_samples, seed], estimated),
        "encode": by_rows(encode, [x], {"mean": vector, "stddev": vector}),
        "posterior_sample": by_tiles(posterior_sample, [x, num_samples, seed], {"z": vector, "ess": scalar}),
        "reconstruct": by_rows(reconstruct, [x], {"mean": image}),
        "decode": by_rows(decode, [z], {"mean": image}),
        "sample": by_rows(sample, [seed], {"x": image, "mean": image}),
    }


def _single(batch):
    return tf.cast(batch[0], tf.float32)


def _unpacked(seed):
    """The stateless seeds (high, low) [..., 2] of int64s [...]: those of `likelihood` for row 2^32 and seed."""
    return tf.reverse(tf.bitcast(seed, tf.int32), axis=[-1])


def _card(model, num_samples, max_num_samples, seed, budget, tile, extra):
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
        "num_samples": num_samples,
        "max_num_samples": max_num_samples,
        "seed": seed,
        **tile._asdict(),
        "annealing": budget._asdict(),
        "trust": (
            f"log_prob is right to within standard_error where pareto_k is at most {importance.PARETO_K_LIMIT}; of "
            f"log_prob_annealed, where ess is at least {importance.least_ess(budget.num_chains):.3g}"
        ),
        "units": "nats",
        **(extra or {}),
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
