"""log p(x) by importance sampling, streamed, and how far each answer can be trusted.

Each example is a problem of its own: its particles are drawn and weighed in chunks of one size, and a handful of
running sums is kept. So memory does not depend on the number of samples or of examples, and an answer does not depend
on the other examples in the batch. A model that was built in the scope of a `tf.distribute` strategy shares out the
examples of a batch to its replicas, for the same answers.
"""

import functools
import warnings
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from iwae_zoo._checks import integer
from iwae_zoo._tracing import Networks, per_model
from iwae_zoo.estimation import psis
from iwae_zoo.estimation.streaming import checked_chunk, default_chunk, stream
from iwae_zoo.model.examples import check

__all__ = [
    "DatasetEstimate",
    "Estimate",
    "checked_chunk",
    "default_chunk",
    "estimate_dataset",
    "estimate_log_prob",
    "evaluate_log_prob",
    "stream",
]

# Examples abreast: the small operations of one fill the gaps that the other's leave on the processor.
_ABREAST = 2
# Examples per call while a data set is evaluated: how often the progress bar moves.
_ROWS = 50
PARETO_K_LIMIT = 0.7


class Estimate(NamedTuple):
    """log p(x) of each example by importance sampling; arrays [B].

    Attributes:
      log_prob: log of the mean importance weight, nats. Its expectation is below log p(x) by about half the squared
        standard error. -inf where x is outside the likelihood's support.
      standard_error: of `log_prob`, nats, by the delta method; infinite for one sample. Trust it where `pareto_k` is
        below 0.5 to 0.7.
      ess: effective number of samples (Kong), between 1 and `num_samples`.
      pareto_k: Pareto shape of the largest weights; see `psis`.
      elbo: mean log weight, nats: with the encoder as proposal, the ELBO.
      in_support: bool, whether p(x) can be positive at all.
      num_samples: number of particles that were used.
    """

    log_prob: np.ndarray
    standard_error: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    elbo: np.ndarray
    in_support: np.ndarray
    num_samples: np.ndarray


class DatasetEstimate(NamedTuple):
    """Mean log p(x) over a data set.

    Attributes:
      log_prob: mean over the examples, nats; over those in the support where some are not.
      standard_error: of that mean as an estimate for the distribution the examples come from: the spread of the
        examples' estimates, which includes their sampling error.
      sampling_standard_error: of that mean for these very examples: what more samples would reduce.
      ess: mean effective number of samples.
      elbo: mean ELBO, nats.
      num_untrusted: number of examples whose Pareto k is above 0.7.
      num_outside_support: number of examples with log p(x) = -inf.
      examples: the `Estimate` of every example.
    """

    log_prob: float
    standard_error: float
    sampling_standard_error: float
    ess: float
    elbo: float
    num_untrusted: int
    num_outside_support: int
    examples: Estimate


def estimate_log_prob(
    model, x, num_samples=5000, seed=0, chunk_size=None, *, tolerance=None, proposal="encoder", first_row=0
):
    """Estimates log p(x) of each example by importance sampling.

    log_prob[b] = log( (1 / S) sum_s p(x_b, z_s) / q(z_s | x_b) ),  z_s ~ q(z | x_b)

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [B, ...], finite.
      num_samples: int, number S of particles per example; any number, memory does not grow with it.
      seed: int, 0 <= seed < 2^31. Example i draws from the stateless seed (`first_row` + i, `seed`), whatever the
        other examples are; an exported model asked with the seed (`first_row` + i) 2^32 + `seed` draws the same.
      chunk_size: int, number of particles decoded at once, at most `num_samples`; None chooses. It changes which
        random numbers are drawn, nothing else.
      tolerance: float, nats; an example stops at the first chunk after which its standard error is at most this.
      proposal: "encoder", or "prior" for the naive estimator that samples z from p(z).
      first_row: int, index of the first example within a larger data set.

    Returns:
      `Estimate` of float64 arrays [B].

    Raises:
      ValueError: on a number out of range, an x of another shape or with NaN in it, or a model whose weights are NaN.

    #### References
    Burda, Grosse, Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016, section 5.
    https://arxiv.org/abs/1509.00519
    """
    chunk_size = _checked_arguments(num_samples, seed, chunk_size, tolerance, proposal)
    x = checked_examples(model, x)
    rows = _batch_function(model, chunk_size, psis.capacity(num_samples), proposal)(
        x, num_samples, seed, first_row, 0.0 if tolerance is None else tolerance
    )
    estimate = Estimate(**{name: value.numpy() for name, value in rows.items()})
    if np.isnan(estimate.log_prob).any():
        raise ValueError(
            "The model's log weights are NaN for an x that is finite: its weights are not finite, or the likelihood "
            "overflows. Restore weights from before training diverged."
        )
    return estimate


def evaluate_log_prob(model, x, num_samples=5000, seed=0, chunk_size=None, *, verbose=1, **options):
    """Estimates the mean log p(x) over a data set, with errors, and says how many answers not to trust.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...], or an iterable of batches such as a `tf.data.Dataset`; every example counts.
      num_samples: int, particles per example.
      seed: int. The same seed gives the same answer, however the examples are batched.
      chunk_size: as in `estimate_log_prob`.
      verbose: 0 for no progress bar.
      **options: `tolerance` and `proposal` of `estimate_log_prob`.

    Returns:
      `DatasetEstimate`.

    Raises:
      ValueError: as `estimate_log_prob`, or if there is no example.

    Warns:
      UserWarning: with counts, when some Pareto k is above 0.7 or some example is outside the support.
    """
    return summarize(estimate_dataset(model, x, num_samples, seed, chunk_size, verbose=verbose, **options))


def estimate_dataset(model, x, num_samples=5000, seed=0, chunk_size=None, *, verbose=1, **options):
    """`estimate_log_prob` of every example of a data set, with a progress bar; arguments as `evaluate_log_prob`."""

    def estimate(batch, first_row):
        return estimate_log_prob(model, batch, num_samples, seed, chunk_size, first_row=first_row, **options)

    return in_batches(estimate, x, verbose)


def in_batches(estimate, x, verbose=1):
    """The `Estimate` of a whole data set from a function that gives that of a batch.

    Args:
      estimate: function of a batch [B, ...] and the index of its first row that returns an `Estimate`.
      x: array [N, ...], or an iterable of batches.
      verbose: 0 for no progress bar.

    Returns:
      `Estimate` of arrays [N].

    Raises:
      ValueError: if there is no example.
    """
    sized = hasattr(x, "shape")
    batches = (x[i : i + _ROWS] for i in range(0, len(x), _ROWS)) if sized else x
    progress = keras.utils.Progbar(len(x) if sized else None, verbose=verbose, unit_name="example")
    parts = []
    row = 0
    for batch in batches:
        parts.append(estimate(batch, row))
        row += len(batch)
        progress.update(row, values=[("log_prob", np.mean(parts[-1].log_prob))], finalize=False)
    if not row:
        raise ValueError("There is no example to evaluate: received an empty data set.")
    progress.update(row, finalize=True)
    return Estimate(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def summarize(examples):
    """The `DatasetEstimate` of an `Estimate`; warns as `evaluate_log_prob` does."""
    inside = examples.in_support
    count = int(inside.sum())
    # Weights that are all equal leave no tail to fit, and no doubt either.
    untrusted = int(np.sum((examples.pareto_k > PARETO_K_LIMIT) & (examples.standard_error > 0) & inside))
    if untrusted:
        warnings.warn(
            f"Pareto k is above {PARETO_K_LIMIT} for {untrusted} of {len(inside)} examples: their log p(x) is likely "
            "too low and their standard error too small. More samples, or annealed importance sampling, can tell.",
            stacklevel=3,
        )
    if count < len(inside):
        warnings.warn(
            f"{len(inside) - count} of {len(inside)} examples are outside the likelihood's support (log p(x) = -inf) "
            "and are left out of the mean.",
            stacklevel=3,
        )
    log_prob = examples.log_prob[inside]

    def mean(values):
        return float(np.mean(values[inside])) if count else float("nan")

    return DatasetEstimate(
        log_prob=mean(examples.log_prob) if count else float("-inf"),
        standard_error=float(np.std(log_prob, ddof=1) / np.sqrt(count)) if count > 1 else float("inf"),
        sampling_standard_error=float(np.sqrt(np.sum(examples.standard_error[inside] ** 2)) / max(count, 1)),
        ess=mean(examples.ess),
        elbo=mean(examples.elbo),
        num_untrusted=untrusted,
        num_outside_support=len(inside) - count,
        examples=examples,
    )


@per_model
def _batch_function(model, chunk_size, capacity, proposal):
    """The traced function that streams each example of a batch, a share of them on each replica."""
    networks = Networks.of(model)
    data_shape = model.data_shape
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync

    @functools.partial(tf.function, autograph=False)  # Traced once, for the three places that it stands in below.
    def one(example, num_samples, row_seed, tolerance):
        return stream(networks, example, num_samples, row_seed, tolerance, chunk_size, capacity, proposal)

    def batch(x, num_samples, seed, first_row, tolerance):
        def group(arguments):
            answers = [
                one(example, num_samples, tf.stack([row, seed]), tolerance)
                for row, example in zip(*map(tf.unstack, arguments), strict=True)
            ]
            return {name: tf.stack([answer[name] for answer in answers]) for name in Estimate._fields}

        # Whole groups, then what is left in groups of one: the same operations for each example, wherever it stands.
        whole = tf.shape(x)[0] // _ABREAST * _ABREAST
        rows = first_row + tf.range(tf.shape(x)[0])
        parts = []
        for part, size in ((slice(None, whole), _ABREAST), (slice(whole, None), 1)):
            groups = (tf.reshape(rows[part], [-1, size]), tf.reshape(x[part], [-1, size, *data_shape]))
            signature = {name: tf.TensorSpec([size], dtype) for name, dtype in _ROW_DTYPES.items()}
            parts.append(tf.map_fn(group, groups, fn_output_signature=signature, parallel_iterations=1))
        return {name: tf.concat([tf.reshape(p[name], [-1]) for p in parts], axis=0) for name in Estimate._fields}

    def share(x, num_samples, seed, first_row, tolerance):
        context = tf.distribute.get_replica_context()
        size = -(-tf.shape(x)[0] // replicas)
        start = size * context.replica_id_in_sync_group
        rows = batch(x[start : start + size], num_samples, seed, first_row + start, tolerance)
        return context.all_gather(tf.stack([tf.cast(rows[name], tf.float64) for name in _ROW_DTYPES], axis=1), axis=0)

    def distributed(*arguments):
        rows = strategy.experimental_local_results(strategy.run(share, arguments))[0]
        columns = tf.unstack(rows, num=len(_ROW_DTYPES), axis=1)
        return {name: tf.cast(column, _ROW_DTYPES[name]) for name, column in zip(_ROW_DTYPES, columns, strict=True)}

    number = tf.TensorSpec([], tf.int32)
    examples = tf.TensorSpec([None, *data_shape], tf.float32)
    signature = (examples, number, number, number, tf.TensorSpec([], tf.float64))
    return tf.function(batch if replicas == 1 else distributed, input_signature=signature, autograph=False)


_ROW_DTYPES = dict.fromkeys(Estimate._fields, tf.float64) | {"in_support": tf.bool, "num_samples": tf.int32}


def _checked_arguments(num_samples, seed, chunk_size, tolerance, proposal):
    if integer("seed", seed, least=0) >= 2**31:
        raise ValueError(f"seed must be an integer from 0 to 2^31 - 1: received {seed!r}.")
    if proposal not in ("encoder", "prior"):
        raise ValueError(f"proposal must be 'encoder' or 'prior': received {proposal!r}.")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be a positive number of nats, or None: received {tolerance!r}.")
    return checked_chunk(chunk_size, num_samples=num_samples)


def some_examples(model, x):
    """As `checked_examples`; raises ValueError also if there is no example."""
    x = checked_examples(model, x)
    if not len(x):
        raise ValueError("x must hold at least one example: received an empty array.")
    return x


def checked_examples(model, x):
    """Returns x as a float32 array [B, ...] that fits the model.

    Raises:
      ValueError: on another shape, no example, or values that are not finite (with the rows named).
    """
    x = np.asarray(x, np.float32)
    if not model.built:
        model.build((None, *x.shape[1:]))
    if x.shape[1:] != tuple(model.data_shape):
        raise ValueError(
            f"x must have shape [B, {', '.join(map(str, model.data_shape))}]: received shape {list(x.shape)}."
            + (" Add a batch axis: x[np.newaxis]." if x.shape == tuple(model.data_shape) else "")
        )
    return check(x)
