"""Where a replica's rows are in the global batch, and sums over all replicas."""

import tensorflow as tf

__all__ = ["place", "total"]


def place(x):
    """Index of this replica's first row in the global batch, and the number of rows of that."""
    rows = tf.shape(x)[0]
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0, rows
    replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
    sizes = total(tf.one_hot(replica, replicas) * tf.cast(rows, tf.float32))
    return tf.cast(tf.cumsum(sizes, exclusive=True)[replica], tf.int32), tf.reduce_sum(sizes)


def total(value):
    """Sum over the replicas; the value itself where there is one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
