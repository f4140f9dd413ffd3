"""A train step and log p(x) on paper: arithmetic, bytes and launches of 784-200-200-50, and what a card makes of them.

    python benchmarks/roofline.py

Prints the tables of docs/devices.md. Nothing is measured: floating-point operations and bytes are counted from the
shapes, launches in the graph, and an operation takes as long as a card needs for its arithmetic, or for its bytes if
that is longer. So no program that reads and writes each array once for each operation can be faster.
"""

import itertools
import pathlib
import sys
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from iwae_zoo_console import quiet

with quiet():
    import tensorflow as tf

    from benchmarks import report, workload

__all__ = ["H200", "RAINFORTH", "Card", "Network", "Work", "exchange", "launches", "log_prob", "seconds", "step"]


class Card(NamedTuple):
    """What a card can do at most.

    Attributes:
      flops: dict from a precision to floating-point operations a second.
      bandwidth: float, bytes a second from and to memory.
      link: float, bytes a second from one card to another in the same machine, one way.
      network: float, the same from machine to machine, for each card.
      launch: float, seconds from one launch of TensorFlow's to the next.
      latency: float, seconds of an exchange of nothing.
    """

    flops: dict[str, float]
    bandwidth: float
    link: float
    network: float
    launch: float
    latency: float


# NVIDIA, H200 Tensor Core GPU, data sheet: SXM, without sparsity (half of what it prints for tensor cores); memory
# 4.8 TB/s; NVLink 900 GB/s both ways. The other three are assumptions: a network card of 400 Gb/s for each GPU, 4 us
# for a launch, 30 us for an exchange.
H200 = Card({"float32": 67e12, "TensorFloat-32": 494.5e12, "bfloat16": 989.5e12}, 4.8e12, 450e9, 50e9, 4e-6, 30e-6)
_BYTES = {"float32": 4, "TensorFloat-32": 4, "bfloat16": 2}


class Network(NamedTuple):
    """Perceptrons by the widths of their layers; the encoder ends in two numbers for each of z, the decoder in logits.

    Attributes:
      encoder: widths, x's first.
      decoder: widths, z's first.
    """

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]

    @property
    def parameters(self):
        """int, weights and biases."""
        return sum(a * b + b for widths in self for a, b in _layers(widths))

    @property
    def variables(self):
        """int, arrays of weights or biases."""
        return sum(2 * len(_layers(widths)) for widths in self)


RAINFORTH = Network((784, 200, 200, 100), (50, 200, 200, 784))


class Work(NamedTuple):
    """An operation, or several alike.

    Attributes:
      kind: "product", "bias", "element-wise" or "optimizer".
      flops: float, of products and biases; others are not counted, for they wait for memory.
      bytes: float, read and written.
    """

    kind: str
    flops: float
    bytes: float


def _layers(widths):
    return list(itertools.pairwise(widths))


def _product(rows, a, b, size):
    """[rows, a] by [a, b], or either of its gradients: the same three arrays."""
    return Work("product", 2.0 * rows * a * b, size * (rows * (a + b) + a * b))


def _element_wise(numbers, size):
    return Work("element-wise", 0.0, size * numbers)


def _passes(widths, rows, size, by_inputs):
    """One network, forward and back."""
    works = []
    for i, (a, b) in enumerate(_layers(widths)):
        works += [_product(rows, a, b, size)] * (3 if i or by_inputs else 2)
        works.append(Work("bias", 2.0 * rows * b, size * rows * b))  # Its gradient: a product with ones.
        if i < len(widths) - 2:
            works.append(_element_wise(5 * rows * b, size))  # tanh: one in, one out; its gradient: two in, one out.
    return works


def step(network, batch_size, particles, precision="float32"):
    """What a train step does: list of `Work`.

    Args:
      network: `Network`.
      batch_size: int.
      particles: int, M K.
      precision: a key of `Card.flops`.
    """
    size, rows = _BYTES[precision], batch_size * particles
    latent, values = network.decoder[0], network.decoder[-1]
    works = _passes(network.encoder, batch_size, size, by_inputs=False)
    works += _passes(network.decoder, rows, size, by_inputs=True)
    works.append(_element_wise(3 * rows * values, size))  # log p(x|z): logits in; its gradient: logits in, one out.
    # Draws: bits out, bits in, z out; log q and log p: z in, each; their gradients: z in, one out, each, and their sum.
    works.append(_element_wise(12 * rows * latent, 4))
    works.append(Work("optimizer", 0.0, 7 * 4 * network.parameters))  # Adam: four in, three out.
    return works


def log_prob(network, num_samples, precision="float32"):
    """What log p(x) of an example does: list of `Work`."""
    size, widths = _BYTES[precision], network.decoder
    works = [_product(num_samples, a, b, size) for a, b in _layers(widths)]
    works += [_element_wise(2 * num_samples * b, size) for b in widths[1:-1]]
    works.append(_element_wise(num_samples * widths[-1], size))
    works.append(_element_wise(5 * num_samples * widths[0], 4))
    return works


def seconds(works, card, precision, kinds=None):
    """The least time, each operation by itself; of some kinds only where `kinds` names them."""
    peak = card.flops[precision]
    return sum(max(w.flops / peak, w.bytes / card.bandwidth) for w in works if kinds is None or w.kind in kinds)


# Of a step: where the replicas' rows are, whether all log weights are finite, and the gradients of each network.
_EXCHANGES = 4


def exchange(network, cards, card, cards_of_machine=8):
    """(bytes, seconds) of what all cards add up in a step, around a ring: what each card sends."""
    if cards == 1:
        return 0.0, 0.0
    sent = 2.0 * (cards - 1) / cards * 4 * network.parameters
    return sent, sent / (card.link if cards <= cards_of_machine else card.network) + _EXCHANGES * card.latency


# What starts nothing on a card.
_FREE = {"Const", "Placeholder", "Identity", "IdentityN", "NoOp", "ReadVariableOp", "Reshape", "Shape", "StridedSlice"}
_FREE |= {"Pack", "Squeeze", "ExpandDims", "StopGradient", "_Arg", "_Retval"}


def launches(model, x):
    """Operations that TensorFlow starts one by one in a step.

    What XLA compiles is one of them; how many kernels it makes of that only a card tells.

    Args:
      model: `ImportanceWeightedAutoencoder`, compiled.
      x: tensor [B, ...].
    """
    graph = tf.function(lambda: model.train_step(x), autograph=False).get_concrete_function().graph
    return sum(operation.type not in _FREE for operation in graph.get_operations())


def steps_table(network, card, shapes):
    """Rows of a step, in Markdown."""
    lines = [
        "| batch x particles | precision | GFLOP | GB | bare products, ms | step, ms | step / bare | with launches |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for batch_size, particles in shapes:
        for precision in card.flops:
            works = step(network, batch_size, particles, precision)
            flops, moved = sum(w.flops for w in works), sum(w.bytes for w in works)
            bare = seconds(works, card, precision, {"product"})
            whole = seconds(works, card, precision)
            # Of each operation and of each variable's update one kernel, launched ahead: the host waits for nothing.
            launched = max(whole, (len(works) + network.variables) * card.launch)
            lines.append(
                f"| {batch_size} x {particles} | {precision} | {flops / 1e9:.1f} | {moved / 1e9:.2f} "
                f"| {1e3 * bare:.2f} | {1e3 * whole:.2f} | {whole / bare:.2f} | {launched / bare:.1f} |"
            )
    return "\n".join(lines)


def log_prob_table(network, card, counts):
    """Rows of log p(x), in Markdown."""
    lines = [
        "| samples | GFLOP | MB | bare products, us | log p(x), us | rate / bare | examples a second |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in counts:
        works = log_prob(network, count)
        flops, moved = sum(w.flops for w in works), sum(w.bytes for w in works)
        bare, whole = seconds(works, card, "float32", {"product"}), seconds(works, card, "float32")
        lines.append(
            f"| {count} | {flops / 1e9:.2f} | {moved / 1e6:.0f} | {1e6 * bare:.0f} | {1e6 * whole:.0f} "
            f"| {bare / whole:.2f} | {1 / whole:,.0f} |"
        )
    return "\n".join(lines)


def exchange_table(network, card, counts, shapes):
    """Rows of several cards, in Markdown: the same batch on each."""
    heads = [f"share of a step, {batch_size} x {particles} on each" for batch_size, particles in shapes]
    lines = [f"| cards | MB sent by each | exchange, us | {' | '.join(heads)} |", "|---|---|---|" + "---|" * len(heads)]
    for count in counts:
        sent, lasts = exchange(network, count, card)
        shares = [lasts / (lasts + seconds(step(network, *shape), card, "float32")) for shape in shapes]
        cells = " | ".join(f"{100 * share:.0f} %" for share in shares)
        lines.append(f"| {count} | {sent / 1e6:.1f} | {1e6 * lasts:.0f} | {cells} |")
    return "\n".join(lines)


def main(_):
    """Prints the tables."""
    by_xla, by_tensorflow = (
        launches(workload.build("piwae", jit_compile=compiled), workload.images(2)) for compiled in (True, False)
    )
    shapes = [(100, 64), (1000, 64)]
    print(f"operations that TensorFlow starts: {by_xla}, without XLA {by_tensorflow}\n")
    print(steps_table(RAINFORTH, H200, shapes), end="\n\n")
    print(log_prob_table(RAINFORTH, H200, [1000, 5000]), end="\n\n")
    print(exchange_table(RAINFORTH, H200, [1, 2, 8, 16, 64, 512], shapes))


if __name__ == "__main__":
    report.run(main, writes=False)
