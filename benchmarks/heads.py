"""What each head and network costs: a train step over the bare products of its own network.

    python benchmarks/heads.py

A row is a likelihood, a posterior or a prior on 784-200-200-50 with [particles, 784] values, or another network. The
bare products are those of the same network: matrix products and convolutions, forward and back, and nothing else.
Beside a likelihood, the same network with TensorFlow Probability's own distribution, where it has one, in place of the
fused log-likelihood. The variants of a row take turns in one process.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

from iwae_zoo_console import quiet

with quiet():
    import tensorflow as tf
    import tensorflow_probability as tfp

    from benchmarks import report, workload
    from iwae_zoo import figures, objectives, presets
    from iwae_zoo.distributions import likelihoods, posteriors
    from iwae_zoo.distributions.values import positive
    from iwae_zoo.networks import prior as priors

_ONLY = flags.DEFINE_list("only", None, "Names of rows. Default: all.")
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


# Each row: fields of the preset, and how many of the particles (a convolution's are dear).
_OTHER_SHAPES = ("categorical", "columns")
ROWS = {f"likelihood {name}": ({"likelihood": name}, 1) for name in likelihoods.names() if name not in _OTHER_SHAPES}
ROWS |= {f"posterior {name}": ({"posterior": name}, 1) for name in posteriors.names() if name != "normal"}
# Of discrete latents, and what relaxes them, each has a prior of its own.
_OWN_PRIORS = {posteriors.get(name, 2).prior.partition(",")[0] for name in posteriors.names()}
ROWS |= {f"prior {name}": ({"prior": name}, 1) for name in priors.names() if name not in _OWN_PRIORS}
ROWS |= {
    "two stochastic layers": ({"preset": "burda_2"}, 1),
    "residual normalized perceptron": ({"network": "perceptron,residual=True,normalized=True"}, 1),
    "convolution": ({"preset": "conv_28"}, 8),
}


def build(fields, share):
    """The network of a row, compiled, and a batch drawn from it."""
    fields = {"preset": "rainforth", **fields}
    has_path = posteriors.get(fields.get("posterior", "normal"), 2).reparameterized
    objective = objectives.get("piwae" if has_path else "vimco", m=_M.value, k=max(_K.value // share, 1))
    shape = (28, 28, 1) if "conv" in fields["preset"] else (_SIZE,)
    model = presets.build(fields.pop("preset"), data_shape=shape, objective=objective, **fields)
    random = tf.random.Generator.from_seed(0)
    for variable in model.trainable_variables:  # Some start at zero, all alike.
        variable.assign_add(0.01 * random.normal(variable.shape))
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
        self._head, self._make = head, TFP[head.name]

    def __getattr__(self, name):
        return getattr(self._head, name)

    def distribution(self, parameters, event_ndims, dtype=None, shared=None):
        """As the head's."""
        del dtype
        return tfd.Independent(self._make(tf.unstack(parameters, axis=-1 - event_ndims), shared), event_ndims)


def with_tfp(model):
    """The same model with TFP's distribution for its decoder's."""
    model.decoder.head = TfpHead(model.decoder.head)
    return model


def measure(fields, share):
    """One row: milliseconds, and ratios to the bare products."""
    model, x = build(fields, share)
    steps = {"bare": workload.bare_products(model, x), "ours": workload.train_step(model, x)}
    if fields.get("likelihood") in TFP:
        steps["TFP's"] = workload.train_step(with_tfp(build(fields, share)[0]), x)
    turns = report.take_turns(steps, _REPEATS.value)
    row = {"milliseconds": turns.milliseconds("ours"), "over_bare": turns.ratio("ours", "bare"), "load": turns.load}
    return row | ({"tfp_over_bare": turns.ratio("TFP's", "bare")} if "TFP's" in steps else {})


def main(_):
    """Prints medians and ratios."""
    unknown = [name for name in _ONLY.value or () if name not in ROWS]
    if unknown:
        raise ValueError(f"--only has no row {', '.join(unknown)}. Rows: {', '.join(ROWS)}.")
    title = f"[{_M.value * _K.value * _BATCH_SIZE.value}, {_SIZE}] values"
    print(f"{title}\n{'':48}{'ms':>8}{'/ bare':>8}{'TFP / bare':>12}", flush=True)
    rows = {}
    for name in _ONLY.value or ROWS:
        fields, share = ROWS[name]
        row = rows[name] = measure(fields, share)
        tfp = f"{row['tfp_over_bare']:12.2f}" if "tfp_over_bare" in row else ""
        print(f"{name:48}{row['milliseconds']:8.2f}{row['over_bare']:8.2f}{tfp}", flush=True)
    ratios = {name: row["over_bare"] for name, row in rows.items()}
    figure = figures.ratio_bars(ratios, f"Train step, {title}", "time / time of the bare products")
    report.write({"rows": rows}, figure)


if __name__ == "__main__":
    report.run(main)
