"""Log-gammas without their large part, which cancels in densities and would take the digits of single precision."""

import tensorflow as tf

__all__ = ["beyond_stirling"]

# From where Stieltjes' fraction of five terms is accurate to 1e-10.
_STIRLING = 4.0


def beyond_stirling(y):
    """lgamma(y) - ((y - 1/2) log y - y + log(2 pi) / 2), for y > 0, to 1e-10.

    #### References
    Stieltjes' continued fraction: https://dlmf.nist.gov/5.10
    """
    # Below, by four steps of lgamma(y + 1) = lgamma(y) + log y, from where the fraction is accurate.
    small = tf.minimum(y, _STIRLING)
    shifted = small + 4.0
    by_steps = (shifted - 0.5) * tf.math.log(shifted) - 4.0 - (small - 0.5) * tf.math.log(small)
    by_steps -= tf.math.log(small * (small + 1.0) * (small + 2.0) * (small + 3.0))
    fraction, start = 0.0, tf.where(y > _STIRLING, y, shifted)
    for numerator in (22999 / 22737, 195 / 371, 53 / 210, 1 / 30, 1 / 12):
        fraction = numerator / (start + fraction)
    return fraction + tf.where(y > _STIRLING, tf.zeros_like(y), by_steps)
