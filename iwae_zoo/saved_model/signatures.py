"""The functions that are served: their inputs and outputs, row by row or a tile of rows at once."""

from typing import NamedTuple

import tensorflow as tf

from iwae_zoo._checks import integer
from iwae_zoo._tracing import Networks, read_once
from iwae_zoo.distributions import fusion
from iwae_zoo.distributions.moments import mean, point, stddev
from iwae_zoo.estimation import annealing, importance, imputation, likelihood, psis, resampling, rows, tiles, walks
from iwae_zoo.model import memory, particles

__all__ = ["Settings", "signatures_of"]

# Rows of a batch that are computed at once, each with a chunk of particles in memory.
_PARALLEL_ROWS = 4


class Settings(NamedTuple):
    """What is fixed at export.

    Attributes:
      num_samples: int, particles for a row of `serving_default`.
      max_num_samples: int, most particles for a row of any request.
      seed: int, of the rows of `serving_default`.
      tile_rows: int, rows that the signatures that weigh particles compute at once.
      particle_chunk: int, particles of each that are decoded at once.
      budget: `walks.Budget` of the annealed signatures.
    """

    num_samples: int
    max_num_samples: int
    seed: int
    tile_rows: int
    particle_chunk: int
    budget: walks.Budget

    @classmethod
    def of(cls, model, num_samples, max_num_samples, seed, budget, tile_rows, particle_chunk):
        """Those of the arguments of `export`; raises ValueError on one out of range."""
        num_samples = integer("num_samples", num_samples)
        max_num_samples = integer("max_num_samples", max_num_samples)
        seed = integer("seed", seed, least=0)
        if num_samples > max_num_samples:
            raise ValueError(
                f"num_samples must be at most max_num_samples: received {num_samples} and {max_num_samples}."
            )
        if max_num_samples > tf.int32.max:
            raise ValueError(f"max_num_samples must be at most 2^31 - 1: received {max_num_samples}.")
        if seed > tf.int64.max:
            raise ValueError(f"seed must be at most 2^63 - 1: received {seed}.")
        chunk = likelihood.default_chunk(num_samples)
        if particle_chunk not in (None, "auto"):
            chunk = min(integer("particle_chunk", particle_chunk), max_num_samples)
        tile_rows = tiles.choose(tiles.checked(tile_rows), model, chunk)
        if particle_chunk == "auto":
            with fusion.portable():
                of_particle = memory.bytes_per_particle(model)
            if particles.takes_missing(model.decoder):
                of_particle *= imputation.MOMENTS
            chunk = memory.fitting_chunk(max(tile_rows, _PARALLEL_ROWS), of_particle, chunk)
        return cls(num_samples, max_num_samples, seed, tile_rows, chunk, budget)


def signatures_of(model, settings):
    """The signatures of a model by their names, `tf.function`s; to be called where fusion is portable.

    Args:
      model: `ImportanceWeightedAutoencoder`, built.
      settings: `Settings`.
    """
    networks, weights = Networks.of(model), model.weights
    tile_rows, chunk_size, budget = settings.tile_rows, settings.particle_chunk, settings.budget
    capacity = psis.capacity(settings.max_num_samples)
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
        return tf.clip_by_value(count, 1, settings.max_num_samples)

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
        answer = estimate(x, of_rows(settings.num_samples), seed)
        answer |= {name: tf.cast(row[name], spec.dtype) for name, spec in estimated.items() if name in row}
        return {**answer, "num_samples": of_rows(budget.num_chains), "method": of_rows(importance.ANNEALED)}

    def impute(x, count, seed):
        drawn = imputation.row(networks, x, clamped(count), _unpacked(seed), chunk_size, capacity, 1)
        answer = {name: tf.cast(drawn[name], spec.dtype) for name, spec in imputed.items() if name in drawn}
        return {**answer, "draw": drawn["draws"][..., 0, *[slice(None)] * len(model.data_shape)]}

    def encode(x):
        q = networks.encoder.posterior(x[tf.newaxis])
        return {"mean": _single(mean(q)), "stddev": _single(stddev(q))}

    def posterior_sample(x, count, seed):
        drawn = resampling.resample(networks, x, clamped(count), _unpacked(seed), chunk_size, capacity)
        return {name: tf.cast(value, tf.float32) for name, value in drawn.items()}

    def posterior_sample_annealed(x, seed):
        # The first of the draws that `annealing.sample_posterior` makes.
        drawn = walk(x, particles.derive_seed(_unpacked(seed), 0))
        return {name: tf.cast(drawn[name], tf.float32) for name in ("z", "ess")}

    def decode(z):
        return {"mean": _single(mean(networks.decoder.likelihood(z[tf.newaxis])))}

    def reconstruct(x):
        return decode(point(networks.encoder.posterior(x[tf.newaxis]))[0])

    def sample(seed):
        pair = _unpacked(seed)
        drawn = networks.prior.distribution().sample(seed=particles.derive_seed(pair, 0))
        p = networks.decoder.likelihood(drawn[tf.newaxis])
        return {"x": _single(p.sample(seed=particles.derive_seed(pair, 1))), "mean": _single(mean(p))}

    def default(x):
        return estimate(x, of_rows(settings.num_samples), of_rows(tf.constant(settings.seed, tf.int64)))

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
