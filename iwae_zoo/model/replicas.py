"""Where a replica's rows are in the global batch, sums over all replicas, and what each has for itself."""

import numpy as np
import tensorflow as tf

__all__ = ["in_one_order", "is_alone", "place", "read", "total", "write"]


def is_alone(strategy):
    """Whether steps exchange nothing: one replica, of no strategy that mirrors variables, if only to one device."""
    mirrors = isinstance(strategy, tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy)
    return strategy.num_replicas_in_sync == 1 and not mirrors


def place(x):
    """Index of this replica's first row in the global batch, and the number of rows of that."""
    rows = tf.shape(x)[0]
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0, rows
    replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
    sizes = total(tf.one_hot(replica, replicas) * tf.cast(rows, tf.float32))
    return tf.cast(tf.cumsum(sizes, exclusive=True)[replica], tf.int32), tf.reduce_sum(sizes)


def in_one_order(x, kwargs, seed, batch_size):
    """What `fit` takes so that all workers of a cluster shuffle an array alike: Keras lets each draw its own order.

    Args:
      x: what the user passes; what is no array stays as it is.
      kwargs: dict, the other arguments of `fit`.
      seed: int, of the order.
      batch_size: int, rows of a batch of an array.

    Returns:
      x, or a shuffled `tf.data.Dataset` of it; and the other arguments.

    Raises:
      ValueError: on a `validation_split`, which is for arrays alone.
    """
    if not hasattr(x, "__array__") or not kwargs.get("shuffle", True):
        return x, kwargs
    if kwargs.get("validation_split"):
        raise ValueError("validation_split is for one machine: pass validation_data to all workers instead.")
    x = np.asarray(x)
    batches = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x), seed=seed).batch(batch_size)
    return batches, {**kwargs, "y": None, "batch_size": None, "shuffle": False}


def total(value):
    """Sum over the replicas, of a tensor or of each in a list; the value itself where there is one replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def read(strategy, variables):
    """What each replica has in variables of its own, such as those of metrics; every worker has to ask.

    Args:
      strategy: `tf.distribute.Strategy`.
      variables: list of V scalar float variables.

    Returns:
      Array [R, V], of every replica.
    """

    def of_replica():
        context = tf.distribute.get_replica_context()
        values = tf.stack([tf.convert_to_tensor(variable) for variable in variables])
        row = [[context.replica_id_in_sync_group]]
        return total(tf.scatter_nd(row, values[tf.newaxis], [context.num_replicas_in_sync, len(variables)]))

    return strategy.experimental_local_results(strategy.run(of_replica))[0].numpy()


def write(strategy, variables, values):
    """Sets variables to what `read` has read; where the number of replicas is another one, to the same sums."""
    if len(values) != strategy.num_replicas_in_sync:
        others = np.zeros([strategy.num_replicas_in_sync - 1, len(variables)], values.dtype)
        values = np.concatenate([values.sum(axis=0, keepdims=True), others])

    def of_replica():
        row = tf.constant(values)[tf.distribute.get_replica_context().replica_id_in_sync_group]
        for variable, value in zip(variables, tf.unstack(row), strict=True):
            variable.assign(value)

    strategy.run(of_replica)
