"""TensorFlow's own random numbers for many seeds at once: Philox with a seed for each row, in integer operations.

`tf.random.stateless_uniform(..., alg="philox")` takes one seed. A tile of rows that each draw from a seed of their own
would need a call for each; here they are drawn together, bit for bit the same.

#### References
Salmon, Moraes, Dror, Shaw. Parallel Random Numbers: As Easy as 1, 2, 3. SC 2011, section 3.3 (Philox-4x32-10).
"""

import tensorflow as tf

from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import fusion

__all__ = ["fold_in", "integers", "streams", "uniform"]

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
# What the two halves of the key grow by from round to round.
_STEPS = (0x9E3779B9, 0xBB67AE85)
# The key under which TensorFlow turns a seed into a key and a place in the stream.
_SCRAMBLING = (0x3EC8F720, 0x02461E29)
# Decorator: the graphs that call a function call it, and have no copies of its hundreds of operations.
_called = tf.function(autograph=False, experimental_attributes={"_noinline": True})


def uniform(seeds, size, dtype=tf.float32, start=0):
    """Uniform numbers in [0, 1), those of `tf.random.stateless_uniform([size], seed, dtype=dtype)` for each seed.

    Args:
      seeds: int32 tensor [R, 2]; or their `streams`.
      size: int or int tensor [], numbers of a row; the whole row has less than 2^34.
      dtype: tf.float32 or tf.float64.
      start: int or int64 tensor [], where in its stream each row begins, in blocks of 16 bytes.

    Returns:
      Float tensor [R, size].
    """
    words = dtype.size // 4
    counts = _counts((size * words + 3) // 4, start)
    return (_doubles if dtype == tf.float64 else _floats)(counts, _as_streams(seeds))[:, :size]


@_called
def integers(seeds, size):
    """int32 tensor [R, size] of any integers; as `tf.random.stateless_uniform([size], seed, None, None, tf.int32)`.

    For few of them, such as seeds: on the host.
    """
    with tf.device("CPU:0"):
        return tf.bitcast(_words(_counts((size + 3) // 4), _as_streams(seeds)), tf.int32)[:, :size]


@_called
def streams(seeds):
    """What stands for seeds [R, 2] in the functions here, for whoever draws from them many times.

    Returns:
      uint32 tensor [R, 4]: of each seed's stream the two words of its key, and the upper two of its counter.
    """
    with tf.device("CPU:0"):
        wide = tf.bitcast(tf.cast(seeds, tf.int64), tf.uint64)[:, tf.newaxis]  # [R, 1, 2]
        (low, next_low), (high, next_high) = (tf.unstack(half, axis=2) for half in _halves(wide))
        words = _philox([low, high, next_low, next_high], [_word(value) for value in _SCRAMBLING])
        return tf.concat(words, axis=1)


def _as_streams(seeds):
    return seeds if seeds.dtype == tf.uint32 else streams(seeds)


def fold_in(seeds, label):
    """Seeds [R, 2], those of `tf.random.experimental.stateless_fold_in(seed, label)` for each seed.

    Args:
      seeds: int32 tensor [R, 2].
      label: int32 tensor [R], or [] for one that all rows share.
    """
    first = integers(seeds, 1)[:, 0]
    return tf.stack([first, tf.broadcast_to(tf.cast(label, tf.int32), tf.shape(first))], axis=1)


@fusion.fused
def _floats(counts, streams):
    """The low 23 bits of a word are the mantissa of a number in [1, 2)."""
    mantissa = tf.bitwise.bitwise_and(_words(counts, streams), _word(0x7FFFFF))
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, _word(127 << 23)), tf.float32) - 1.0


@fusion.fused
def _doubles(counts, streams):
    """The low 20 bits of a word, and then those of the next."""
    words = tf.cast(_words(counts, streams), tf.uint64)
    high = tf.bitwise.bitwise_and(words[:, ::2], tf.constant(0xFFFFF, tf.uint64))
    mantissa = tf.bitwise.bitwise_or(tf.bitwise.left_shift(high, tf.constant(32, tf.uint64)), words[:, 1::2])
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, tf.constant(1023 << 52, tf.uint64)), tf.float64) - 1.0


def _counts(size, start=0):
    """uint64 tensor [size], the counts from `start` on."""
    return tf.bitcast(tf.cast(tf.range(size), tf.int64) + tf.cast(start, tf.int64), tf.uint64)


def _words(counts, streams):
    """uint32 tensor [R, 4 N] of random bits, four words for each of the counts [N] of the streams [R, 4]."""
    key, next_key, third, fourth = tf.split(streams, 4, axis=1)
    first, second = (half[tf.newaxis] + tf.zeros_like(key) for half in _halves(counts))  # [R, N]
    nothing, (rows, columns) = tf.zeros_like(first), shape_of(first)
    words = _philox([first, second, third + nothing, fourth + nothing], [key, next_key])
    return tf.reshape(tf.stack(words, axis=2), [rows, 4 * columns])


def _philox(counter, key):
    """The four words that stand at a counter (four words) of a key's stream (two words); uint32 tensors."""
    for step in range(_ROUNDS):
        if step:
            key = [half + _word(grows) for half, grows in zip(key, _STEPS, strict=True)]
        (low_a, high_a), (low_b, high_b) = (
            _halves(tf.cast(counter[i], tf.uint64) * tf.constant(factor, tf.uint64))
            for i, factor in zip((0, 2), _MULTIPLIERS, strict=True)
        )
        first = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(high_b, counter[1]), key[0])
        third = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(high_a, counter[3]), key[1])
        counter = [first, low_b, third, low_a]
    return counter


def _halves(wide):
    """The low and the high 32 bits of a uint64 tensor, as uint32."""
    low = tf.bitwise.bitwise_and(wide, tf.constant(0xFFFFFFFF, tf.uint64))
    return tf.cast(low, tf.uint32), tf.cast(tf.bitwise.right_shift(wide, tf.constant(32, tf.uint64)), tf.uint32)


def _word(value):
    return tf.constant(value, tf.uint32)
