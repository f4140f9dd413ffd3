"""How close a train step is to the arithmetic it cannot avoid.

    python benchmarks/train_step.py

All variants take turns in one process, so that the ratios hold on a machine whose speed drifts. Compared are train
steps of one objective (iwae) and of two (piwae), two objectives the naive way (two losses, two backward passes), the
same two with fewer particles in the backward pass and with bfloat16, and the bare matrix products that any of them
needs, in both precisions: what bfloat16 gains is the hardware's.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

from iwae_zoo_console import quiet

with quiet():
    import tensorflow as tf

    from benchmarks import report, workload
    from iwae_zoo import figures, objectives, particles

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Examples in a batch.", lower_bound=1)
_M = flags.DEFINE_integer("m", 8, "Groups of particles.", lower_bound=1)
_K = flags.DEFINE_integer("k", 8, "Particles in a group.", lower_bound=1)
_BACKWARD = flags.DEFINE_integer("backward_particles", 8, "As in train_main.py; left out if not below M K.")
_REPEATS = flags.DEFINE_integer("repeats", 40, "Turns; the medians over them are printed.", lower_bound=1)
flags.adopt_module_key_flags(report)

_BARE, _ONE = "bare matrix products", "iwae (one objective)"


def naive_step(objective, x):
    """PIWAE as two losses with a backward pass through the decoder for each."""
    model = workload.build(objective)

    @tf.function(
        autograph=False, jit_compile=bool(tf.config.get_visible_devices("GPU"))
    )  # As the model's own steps are.
    def step():
        seed = particles.derive_seed(0, model.encoder_optimizer.iterations)
        with tf.GradientTape(persistent=True) as tape:
            posterior = model.encoder.posterior(x)
            z = particles.draw(posterior, objective.m, objective.k, seed)
            log_weights = particles.log_joint(model.decoder, model.prior, x, z) - posterior.log_prob(z)
            decoder_loss = -tf.reduce_mean(objective.decoder_bound.value(log_weights))
            encoder_loss = -tf.reduce_mean(objective.encoder_bound.value(log_weights))
        encoder = tape.gradient(encoder_loss, [v.value for v in model.encoder_variables])
        decoder = tape.gradient(decoder_loss, [v.value for v in model.decoder_variables])
        model.encoder_optimizer.apply(encoder, model.encoder_variables)
        model.decoder_optimizer.apply(decoder, model.decoder_variables)
        return decoder_loss, encoder_loss

    return workload.finished(step)


def variants(x):
    """The compared functions by name."""
    count = _M.value * _K.value
    piwae = objectives.get("piwae", m=_M.value, k=_K.value)

    def step(objective, **options):
        return workload.train_step(workload.build(objective, **options), x)

    steps = {
        _BARE: workload.bare_products(workload.build(piwae), x),
        _ONE: step(objectives.get("iwae", m=_M.value, k=_K.value)),
        "piwae (two objectives)": step(piwae),
        "piwae, two naive tapes": naive_step(piwae, x),
    }
    if _BACKWARD.value < count:
        steps[f"piwae, back through {_BACKWARD.value} of {count}"] = step(piwae, backward_particles=_BACKWARD.value)
    steps["bare products in bfloat16"] = workload.bare_products(workload.build(piwae), x, tf.bfloat16)
    steps["piwae in bfloat16"] = step(piwae, mixed_precision="bfloat16")
    return steps


def main(_):
    """Prints medians and ratios."""
    turns = report.take_turns(variants(workload.images(_BATCH_SIZE.value)), _REPEATS.value)
    title = f"batch {_BATCH_SIZE.value}, M = {_M.value}, K = {_K.value}"
    print(f"{title}, {turns}")
    print(f"{'':32}{'ms':>8}{'/ bare':>8}{'/ iwae':>8}")
    rows = {}
    for name in turns.seconds:
        rows[name] = {
            "milliseconds": turns.milliseconds(name),
            "over_bare": turns.ratio(name, _BARE),
            "over_one_objective": turns.ratio(name, _ONE),
        }
        print(f"{name:32}" + "".join(f"{value:8.2f}" for value in rows[name].values()))
    ratios = {name: row["over_bare"] for name, row in rows.items()}
    figure = figures.ratio_bars(ratios, f"Train step, {title}", "time / time of the bare matrix products")
    report.write({"load": turns.load, "variants": rows}, figure)


if __name__ == "__main__":
    report.run(main)
