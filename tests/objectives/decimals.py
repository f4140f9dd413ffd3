"""Bounds of log weights in two hundred decimals, and their first and second derivatives: no digits are lost."""

import decimal
from decimal import Decimal

import numpy as np

STEP = Decimal(10) ** -60


def log_mean_exp(particles):
    return (sum(x.exp() for x in particles) / len(particles)).ln()


def jackknife(particles):
    n = len(particles)
    without = [log_mean_exp(particles[:i] + particles[i + 1 :]) for i in range(n)]
    return n * log_mean_exp(particles) - (n - 1) * sum(without) / n


def riemann_sum(betas, steps):
    """A function of log weights."""

    def mean(beta, particles):
        powers = [(Decimal(beta) * x).exp() for x in particles]
        return sum(w * x for w, x in zip(powers, particles, strict=True)) / sum(powers)

    return lambda particles: sum(Decimal(s) * mean(b, particles) for b, s in zip(betas, steps, strict=True))


def derivatives(function, log_weights):
    """(value, a [N], a' [N]) of a function of log weights [N], as floats."""
    with decimal.localcontext() as context:
        context.prec = 200
        particles = [Decimal(float(x)) for x in log_weights]
        value, first, second = function(particles), [], []
        for i in range(len(particles)):
            up, down = (function([*particles[:i], particles[i] + s, *particles[i + 1 :]]) for s in (STEP, -STEP))
            first.append(float((up - down) / (2 * STEP)))
            second.append(float((up - 2 * value + down) / STEP**2))
        return float(value), np.array(first), np.array(second)
