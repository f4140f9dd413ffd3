"""What a likelihood head costs: a train step with it over the bare matrix products of its own network.

    python benchmarks/heads.py

A row is a head on 784-200-200-50 with [particles, 784] values; the decoder's last layer is as wide as the head asks
for, and the bare products have the same width. Beside it, the same network and head with TensorFlow Probability's own
distribution, where it has one, in place of the fused log-likelihood. All variants take turns in one process.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import app, flags

from iwae_zoo_console import quiet

with quiet():
    import tensorflow as tf
    import tensorflow_probability as tfp

    from benchmarks import report, workload
    from iwae_zoo import figures, objectives, presets
    from iwae_zoo.distributions.values import positive

_HEADS = flags.DEFINE_list(
    "heads",
    "bernoulli,continuous_bernoulli,beta,discretized_logistic,normal,student_t,laplace,poisson,negative_binomial,"
    "zero_inflated_negative_binomial",
    "Names of heads.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Examples in a batch.", lower_bound=1)
_M = flags.DEFINE_integer("m", 8, "Groups of particles.", lower_bound=1)
_K = flags.DEFINE_integer("k", 8, "Particles in a group.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 20, "Turns; the medians over them are printed.", lower_bound=1)
flags.adopt_module_key_flags(report)

_SIZE = 784
tfd = tfp.distributions


# Distributions of one value by TFP, from parameters [..., V] and shared parameters [V].
TFP = {
    "bernoulli": lambda p, shared: tfd.Bernoulli(logits=p[0], dtype=tf.float32),
    "continuous_bernoulli": lambda p, shared: tfd.ContinuousBernoulli(logits=p[0]),
    "beta": lambda p, shared: tfd.Beta(positive(p[0]), positive(p[1])),
    "discretized_logistic": lambda p, shared: tfd.QuantizedDistribution(
        tfd.Logistic(127.5 * (p[0] + 1.0), 127.5 * positive(p[1])), low=0.0, high=255.0
    ),
    "normal": lambda p, shared: tfd.Normal(p[0], positive(p[1])),
    "student_t": lambda p, shared: tfd.StudentT(2.0 + positive(shared[0]), p[0], positive(p[1])),
    "laplace": lambda p, shared: tfd.Laplace(p[0], positive(p[1])),
    "poisson": lambda p, shared: tfd.Poisson(log_rate=p[0]),
    "negative_binomial": lambda p, shared: tfd.NegativeBinomial.experimental_from_mean_dispersion(
        tf.exp(p[0]), 1.0 / positive(shared[0])
    ),
}


def build(name):
    """The network with a head, compiled, and a batch drawn from it."""
    objective = objectives.get("piwae", m=_M.value, k=_K.value)
    model = presets.build("rainforth", data_shape=(_SIZE,), objective=objective, likelihood=name)
    model.compile()
    z = model.prior.distribution().sample(_BATCH_SIZE.value, seed=(0, 1))
    x = model.decoder.likelihood(z).sample(seed=(0, 2))
    # TFP's beta has no density at the ends.
    return model, tf.clip_by_value(x, 0.01, 0.99) if "intensity" in model.decoder.head.kinds else x


class TfpHead:
    """A head's own parameters, read by TFP.

    Args:
      head: `Likelihood`.
    """

    def __init__(self, head):
        self.parameters_per_value = head.parameters_per_value
        self.shared_parameters = head.shared_parameters
        self._make = TFP[head.name]

    def distribution(self, parameters, event_ndims, dtype=None, shared=None):
        """As the head's."""
        del dtype
        return tfd.Independent(self._make(tf.unstack(parameters, axis=-1 - event_ndims), shared), event_ndims)


def with_tfp(model):
    """The same model with TFP's distribution for its decoder's."""
    model.decoder.head = TfpHead(model.decoder.head)
    return model


def main(_):
    """Prints medians and ratios."""
    steps = {}
    for name in _HEADS.value:
        model, x = build(name)
        particles = _M.value * _K.value
        steps[f"{name}, bare products"] = workload.bare_products(
            _BATCH_SIZE.value, particles, outputs=_SIZE * model.decoder.head.parameters_per_value
        )
        steps[name] = workload.train_step(model, x)
        if name in TFP:
            steps[f"{name}, TFP's"] = workload.train_step(with_tfp(build(name)[0]), x)
    turns = report.take_turns(steps, _REPEATS.value)
    title = f"[{_M.value * _K.value * _BATCH_SIZE.value}, {_SIZE}] values"
    print(f"{title}, {turns}")
    print(f"{'':36}{'ms':>8}{'/ bare':>8}{'TFP / bare':>12}")
    rows, ratios = {}, {}
    for name in _HEADS.value:
        bare = f"{name}, bare products"
        rows[name] = {"milliseconds": turns.milliseconds(name), "over_bare": turns.ratio(name, bare)}
        ratios[name] = rows[name]["over_bare"]
        line = f"{name:36}{rows[name]['milliseconds']:8.2f}{rows[name]['over_bare']:8.2f}"
        if name in TFP:
            rows[name]["tfp_over_bare"] = ratios[f"{name}, TFP's"] = turns.ratio(f"{name}, TFP's", bare)
            line += f"{rows[name]['tfp_over_bare']:12.2f}"
        print(line)
    figure = figures.ratio_bars(ratios, f"Train step by likelihood, {title}", "time / time of the bare matrix products")
    report.write({"load": turns.load, "heads": rows}, figure)


if __name__ == "__main__":
    app.run(main)
