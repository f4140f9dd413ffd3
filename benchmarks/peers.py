"""Train steps and log p(x) against pythae (PyTorch): the same network, batch and particles.

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    pip install -e '.[peers]'
    python benchmarks/peers.py

All variants take turns in one process, so that the ratios hold on a machine whose speed drifts; each library has the
threads it takes by default. Other programs slow PyTorch down far more than TensorFlow, since each of its operations
waits for its slowest thread: turns in which they ran do not count. PyTorch is told to take denormal numbers for zero,
as TensorFlow always does: tiny importance weights produce them, and pythae's steps would take up to twice as long.

A train step of pythae is what its trainers do with a batch. Its `get_nll` is timed as its users call it, and at its
best: without gradients, at the fastest of several batch sizes. That both libraries answer the same question is
checked: the networks share their weights, and log p(x) must agree.
"""

import functools
import itertools
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

from iwae_zoo_console import quiet

with quiet():
    from benchmarks import report, workload
    from iwae_zoo import figures, likelihood, objectives

try:
    import pythae.models
    import torch
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
except ImportError as error:
    raise SystemExit(
        f"benchmarks/peers.py needs pythae: pip install -e '.[peers]' ({error}). To get the small build of torch, "
        "first: pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
    ) from None

_OBJECTIVES = flags.DEFINE_list("objectives", ["miwae"], "Train steps to compare: of iwae, miwae, piwae.")
flags.register_validator(_OBJECTIVES, bool, "at least one is needed")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Examples in a batch.")
_M = flags.DEFINE_integer("m", 8, "Groups of particles.")
_K = flags.DEFINE_integer("k", 8, "Particles in a group.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 5000, "Particles per example, for log p(x).")
_EXAMPLES = flags.DEFINE_integer("examples", 20, "Examples of one call, for log p(x).")
_CHUNKS = flags.DEFINE_list("chunks", ["100", "1000", "2500", "5000"], "Batch sizes of pythae's get_nll.")
_REPEATS = flags.DEFINE_integer("repeats", 40, "Turns of the train steps; the medians over them are printed.")
_LIKELIHOOD_REPEATS = flags.DEFINE_integer("likelihood_repeats", 10, "Turns of log p(x).")
_FLUSH = flags.DEFINE_bool(
    "flush_denormal", True, "Whether PyTorch takes denormal numbers for zero, as TensorFlow does."
)
flags.adopt_module_key_flags(report)
flags.set_default(report.LOAD, 0.1)

_PYTHAE_CHUNK = 100  # The default batch size of pythae's get_nll.


def multilayer(perceptron):
    """The layers of one of our perceptrons, with their weights, for PyTorch."""
    layers: list[torch.nn.Module] = []
    for dense in perceptron.stack:
        kernel, bias = (torch.from_numpy(np.array(value)) for value in dense.get_weights())
        linear = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(kernel.T)
            linear.bias.copy_(bias)
        layers += [linear, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


class Encoder(BaseEncoder):
    """Mean and log variance of `networks.Encoder`."""

    def __init__(self, encoder):
        super().__init__()
        self.layers = multilayer(encoder.body)

    def forward(self, x):
        loc, raw_scale = self.layers(x.flatten(1)).chunk(2, dim=-1)
        scale = torch.nn.functional.softplus(raw_scale) + 1e-4
        return ModelOutput(embedding=loc, log_covariance=2.0 * scale.log())


class Decoder(BaseDecoder):
    """Means of the pixels of `networks.Decoder`."""

    def __init__(self, decoder):
        super().__init__()
        self.layers = multilayer(decoder.body)

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z).sigmoid().unflatten(-1, (1, 28, 28)))


def pythae_model(name, ours):
    """The same network, weights and numbers of particles in pythae."""
    settings = {"input_dim": (1, 28, 28), "latent_dim": ours.latent_size, "reconstruction_loss": "bce"}
    if name == "iwae":
        model, config = pythae.models.IWAE, pythae.models.IWAEConfig(**settings, number_samples=_M.value * _K.value)
    else:
        model, config = {
            "miwae": (pythae.models.MIWAE, pythae.models.MIWAEConfig),
            "piwae": (pythae.models.PIWAE, pythae.models.PIWAEConfig),
        }[name]
        # Its bound is over the axis that it calls gradient estimates, the mean over the one of samples.
        config = config(**settings, number_gradient_estimates=_K.value, number_samples=_M.value)
    return model(config, encoder=Encoder(ours.encoder), decoder=Decoder(ours.decoder))


def for_torch(x):
    """Images with the axis of colours where PyTorch has it."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def pythae_step(name, model, x):
    """What `BaseTrainer.train_step` does with a batch, or `CoupledOptimizerTrainer.train_step` for PIWAE."""
    inputs = {"data": for_torch(x)}
    model.train()
    adam = functools.partial(torch.optim.Adam, lr=1e-3)

    if name == "piwae":
        encoder, decoder = adam(model.encoder.parameters()), adam(model.decoder.parameters())

        def step():
            output = model(inputs)
            encoder.zero_grad()
            output.encoder_loss.backward(retain_graph=True)
            decoder.zero_grad()
            output.decoder_loss.backward(retain_graph=True)
            encoder.step()
            decoder.step()
            return output.encoder_loss.item(), output.decoder_loss.item()

    else:
        optimizer = adam(model.parameters())

        def step():
            output = model(inputs)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            return output.loss.item()

    return step


def compare(turns, ours, theirs, count=1):
    """A row of the table: medians in milliseconds for one of `count`, and the median ratio."""
    return {
        "ours_milliseconds": turns.milliseconds(ours) / count,
        "pythae_milliseconds": turns.milliseconds(theirs) / count,
        "ratio": turns.ratio(theirs, ours),
    }


def print_rows(title, ratio, rows):
    """Prints a table."""
    print(f"{title:48}{'ours':>10}{'pythae':>10}    {ratio}")
    for name, row in rows.items():
        print(f"{name:48}{row['ours_milliseconds']:10.2f}{row['pythae_milliseconds']:10.2f}{row['ratio']:10.2f}")


def train_steps(x):
    """The rows of the train steps, the turns, and our first model, trained a little."""
    names = _OBJECTIVES.value
    ours = {name: workload.build(objectives.get(name, m=_M.value, k=_K.value)) for name in names}
    steps = {f"ours {name}": workload.train_step(model, x) for name, model in ours.items()}
    steps |= {f"pythae {name}": pythae_step(name, pythae_model(name, model), x) for name, model in ours.items()}
    turns = report.take_turns(steps, _REPEATS.value)
    return {name: compare(turns, f"ours {name}", f"pythae {name}") for name in names}, turns, ours[names[0]]


def log_prob(ours, x):
    """The rows of log p(x), the turns, and the answers of both for the same weights with their standard errors."""
    theirs = pythae_model("miwae", ours).eval()
    seeds = itertools.count()

    def estimate():
        return np.mean(likelihood.estimate_log_prob(ours, x, _NUM_SAMPLES.value, next(seeds)).log_prob)

    def get_nll(**options):
        return theirs.get_nll(for_torch(x), n_samples=_NUM_SAMPLES.value, **options)  # Despite its name not negative.

    variants = {"ours": estimate, f"get_nll as it is, batch size {_PYTHAE_CHUNK}": get_nll}
    for chunk in report.whole_numbers(_CHUNKS):
        label = f"get_nll without gradients, batch size {chunk}"
        variants[label] = torch.no_grad()(functools.partial(get_nll, batch_size=chunk))
    turns = report.take_turns(variants, _LIKELIHOOD_REPEATS.value)
    rows = {name: compare(turns, "ours", name, len(x)) for name in variants if name != "ours"}
    results = [turns.results[name] for name in rows]
    return rows, turns, {"ours": mean_and_error(turns.results["ours"]), "pythae": mean_and_error(results)}


def mean_and_error(values):
    """Mean of independent values, and its standard error."""
    return {"mean": float(np.mean(values)), "standard_error": float(np.std(values, ddof=1) / np.sqrt(np.size(values)))}


def main(_):
    """Prints medians and ratios."""
    for chunk in (_PYTHAE_CHUNK, *report.whole_numbers(_CHUNKS)):
        if _NUM_SAMPLES.value % chunk:
            raise ValueError(f"get_nll draws whole batches: --num_samples must be a multiple of {chunk}.")
    torch.set_flush_denormal(_FLUSH.value)
    x = workload.images(max(_BATCH_SIZE.value, _EXAMPLES.value)).numpy()
    print(f"threads: TensorFlow {len(os.sched_getaffinity(0))}, PyTorch {torch.get_num_threads()}")
    steps, step_turns, ours = train_steps(x[: _BATCH_SIZE.value])
    title = f"batch {_BATCH_SIZE.value}, M = {_M.value}, K = {_K.value}"
    print(f"{title}, {step_turns}")
    print_rows("train step, ms", "steps per second, ours / pythae's", steps)
    calls, call_turns, answers = log_prob(ours, x[: _EXAMPLES.value])
    print(f"{_NUM_SAMPLES.value} samples, {_EXAMPLES.value} examples, {call_turns}")
    print_rows("log p(x), ms per example", "pythae's time / ours", calls)
    best = min(calls, key=lambda name: calls[name]["ratio"])
    print(f"pythae's best: {calls[best]['ratio']:.2f} ({best})")
    print(
        "log p(x) of the same weights: "
        + ", ".join(f"{name} {a['mean']:.3f} +- {a['standard_error']:.3f}" for name, a in answers.items())
    )
    ratios = {f"train step, {name}": row["ratio"] for name, row in steps.items()}
    ratios |= {f"log p(x), {name}": row["ratio"] for name, row in calls.items()}
    title = f"Against pythae: {title}; log p(x) with {_NUM_SAMPLES.value} samples"
    results = {"train_step": steps, "log_prob": calls, "best": best, "answers": answers}
    report.write(
        {**results, "loads": [step_turns.load, call_turns.load]},
        figures.ratio_bars(ratios, title, "pythae's time / ours"),
    )


if __name__ == "__main__":
    report.run(main)
