"""What training did."""

import math

import matplotlib.figure

from iwae_zoo.figures.parts import titled

__all__ = ["training_curves"]


def training_curves(history, title):
    """Both bounds over the epochs, in training and validation.

    Args:
      history: list of dicts with "epoch", "decoder_bound", "encoder_bound" and, with the prefix "val_", the same.
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    figure = matplotlib.figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in history]
    same = all(row["decoder_bound"] == row["encoder_bound"] for row in history)
    curves = [("decoder_bound", "decoder and encoder bound" if same else "decoder bound", "C0")]
    curves += [] if same else [("encoder_bound", "encoder bound", "C1")]
    for name, label, color in curves:
        for prefix, style, marker, split in (("", ":", "x", "training"), ("val_", "-", "o", "validation")):
            values = [row[prefix + name] for row in history]
            seen = marker if len(epochs) == 1 else None  # A line of one epoch is none.
            axes.plot(epochs, values, style, color=color, marker=seen, label=f"{label}, {split}")
    # The first epochs are far below the rest and would flatten it.
    tail = [row[name] for row in history[len(history) // 20 :] for name in ("decoder_bound", "val_decoder_bound")]
    tail += [row["val_encoder_bound"] for row in history[len(history) // 20 :]]
    tail = [value for value in tail if math.isfinite(value)]  # A validation example may be outside the support.
    if tail:
        margin = 0.05 * (max(tail) - min(tail)) + 1e-3
        axes.set_ylim(min(tail) - margin, max(tail) + margin)
    axes.set(xlabel="epoch", ylabel="bound on log p(x) (nats per example)")
    titled(figure, title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
