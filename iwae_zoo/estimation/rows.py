"""Questions that are answered row by row: each example in tensors of the same shapes, wherever it stands in a batch.

One row at a time, or a tile of rows at a time, which has always the same number of them. So an answer depends on its
example alone, bit for bit. A model that was built in the scope of a `tf.distribute` strategy shares out the examples of
a batch to its replicas, for the same answers.
"""

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import integer
from iwae_zoo._tracing import read_once

__all__ = ["at_once", "by_rows", "checked_answers", "in_tiles", "numbered", "swapped"]

# Examples abreast: the small operations of one fill the gaps that the other's leave on the processor.
_ABREAST = 2


def at_once(tile_rows):
    """Number of rows that `by_rows` computes at once, on each device: int."""
    return _ABREAST if tile_rows == 1 else tile_rows


def swapped(values):
    """[T, N, ...] of [N, T, ...], and the other way round."""
    return tf.transpose(values, [1, 0, *range(2, values.shape.rank)])


def by_rows(model, one, inputs, shared, outputs, tile_rows=1):
    """A traced function of a batch from a function of one row, or of a tile of rows.

    Args:
      model: `ImportanceWeightedAutoencoder`, of which the function keeps the weights and the strategy.
      one: function (row seed [2], *inputs of a row, *shared) that returns a dict of tensors.
      inputs: list of `tf.TensorSpec`, those of a row; the first is an example.
      shared: list of `tf.TensorSpec`, those of all rows.
      outputs: dict of `tf.TensorSpec`, what `one` returns of a row.
      tile_rows: int, number T of rows that `one` is given at once; above 1 it is a function (row seeds [T, 2], *inputs
        [T, ...], *shared) of a tile, whose tensors have the axis of its rows first.

    Returns:
      Function (rows [B], seed, *batches of the inputs, *shared) that returns a dict of batches of the outputs. The seed
      of an example is the pair of its row and `seed`.
    """
    strategy, weights = model.distribute_strategy, model.weights
    replicas = strategy.num_replicas_in_sync

    def batch(rows, seed, *arguments):
        common = arguments[len(inputs) :]
        with read_once(weights):
            if tile_rows > 1:
                columns = (rows, *arguments[: len(inputs)])
                return in_tiles(lambda tile, *x: one(_seeds(tile, seed), *x, *common), columns, outputs, tile_rows)
            return tf.map_fn(
                lambda row: one(tf.stack([row[0], seed]), *row[1:], *common),
                (rows, *arguments[: len(inputs)]),
                fn_output_signature=outputs,
                parallel_iterations=_ABREAST,
            )

    def share(rows, seed, *arguments):
        context = tf.distribute.get_replica_context()
        size = -(-tf.size(rows) // replicas)
        start = size * context.replica_id_in_sync_group
        own = [v[start : start + size] for v in (rows, *arguments[: len(inputs)])]
        answers = batch(own[0], seed, *own[1:], *arguments[len(inputs) :])
        columns = [
            tf.reshape(tf.cast(answers[name], tf.float64), [tf.size(own[0]), spec.shape.num_elements()])
            for name, spec in outputs.items()
        ]
        return context.all_gather(tf.concat(columns, axis=1), axis=0)

    def distributed(*arguments):
        gathered = strategy.experimental_local_results(strategy.run(share, arguments))[0]
        columns = tf.split(gathered, [spec.shape.num_elements() for spec in outputs.values()], axis=1)
        return {
            name: tf.cast(tf.reshape(column, [-1, *spec.shape]), spec.dtype)
            for (name, spec), column in zip(outputs.items(), columns, strict=True)
        }

    batches = [tf.TensorSpec([None, *spec.shape], spec.dtype) for spec in inputs]
    signature = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32), *batches, *shared)
    return tf.function(batch if replicas == 1 else distributed, input_signature=signature, autograph=False)


def in_tiles(function, columns, outputs, tile_rows):
    """The answers to a batch, of which a tile of rows is computed at a time; TensorFlow operations only, for graphs.

    Args:
      function: function of tensors [T, ...], the columns of a tile, that returns a dict of tensors [T, ...].
      columns: sequence of tensors [B, ...].
      outputs: dict of `tf.TensorSpec`, what is returned of a row.
      tile_rows: int, T.

    Returns:
      dict of tensors [B, ...]. The last tile is filled up with its last row.
    """
    count = tf.shape(columns[0])[0]
    tiles = (count + tile_rows - 1) // tile_rows
    places = tf.reshape(tf.minimum(tf.range(tiles * tile_rows), count - 1), [tiles, tile_rows])

    def one(rows):
        return function(*(tf.ensure_shape(tf.gather(c, rows), [tile_rows, *c.shape[1:]]) for c in columns))

    signature = {name: tf.TensorSpec([tile_rows, *spec.shape], spec.dtype) for name, spec in outputs.items()}
    # One after the other: a tile keeps the device busy, and takes memory.
    answers = tf.map_fn(one, places, fn_output_signature=signature, parallel_iterations=1)
    return {name: tf.reshape(answers[name], [-1, *spec.shape])[:count] for name, spec in outputs.items()}


def _seeds(rows, seed):
    return tf.stack([rows, tf.broadcast_to(seed, tf.shape(rows))], axis=1)


def checked_answers(answers):
    """Returns `answers`, an array for examples that are finite.

    Raises:
      ValueError: if there is NaN among them.
    """
    if np.isnan(answers).any():
        raise ValueError(
            "The model's log weights are NaN for an x that is finite: its weights are not finite, or its densities "
            "overflow. Restore weights from before training diverged."
        )
    return answers


def numbered(count, first_row=0, rows=None):
    """The rows of a batch's examples, for their seeds.

    Args:
      count: int B, number of examples.
      first_row: int, that of the first; the others follow.
      rows: int array [B], 0 <= row < 2^31, that of each, instead.

    Returns:
      int32 array [B].

    Raises:
      ValueError: if `rows` is of another shape, or they are out of range.
    """
    if rows is None:
        first = integer("first_row", first_row, least=0)
        if first + count > 2**31:
            raise ValueError(f"Rows must be below 2^31: received first_row={first_row} for {count} examples.")
        return np.arange(first, first + count, dtype=np.int32)
    rows = np.asarray(rows)
    if rows.shape != (count,) or rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < 2**31)).all():
        raise ValueError(
            f"rows must be integers from 0 to 2^31 - 1, one for each of {count} examples: received {rows}."
        )
    return rows.astype(np.int32)
