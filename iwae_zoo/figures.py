"""Arrays to matplotlib figures; nothing is computed here."""

import matplotlib.figure
import numpy as np

__all__ = ["image_grid", "training_curves", "write"]


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
        for prefix, style, split in (("", ":", "training"), ("val_", "-", "validation")):
            axes.plot(epochs, [row[prefix + name] for row in history], style, color=color, label=f"{label}, {split}")
    # The first epochs are far below the rest and would flatten it.
    tail = [row[name] for row in history[len(history) // 20 :] for name in ("decoder_bound", "val_decoder_bound")]
    tail += [row["val_encoder_bound"] for row in history[len(history) // 20 :]]
    margin = 0.05 * (max(tail) - min(tail)) + 1e-3
    axes.set_ylim(min(tail) - margin, max(tail) + margin)
    axes.set(xlabel="epoch", ylabel="bound on log p(x) (nats per example)", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def image_grid(rows, title, labels=None):
    """Rows of images.

    Args:
      rows: array [R, C, ...], R rows of C examples with values in [0, 1]; an example of rank 1 is shown as a strip.
      title: str.
      labels: optional R strings, beside the rows.

    Returns:
      `matplotlib.figure.Figure`.
    """
    rows = np.asarray(rows)
    count, columns = rows.shape[:2]
    figure = matplotlib.figure.Figure(figsize=(1.5 + 0.6 * columns, 0.5 + 0.65 * count), layout="constrained")
    grid = figure.subplots(count, columns, squeeze=False)
    for i in range(count):
        for j in range(columns):
            grid[i, j].imshow(_as_image(rows[i, j]), cmap="gray_r", vmin=0, vmax=1)
            grid[i, j].set(xticks=[], yticks=[])
        if labels:
            grid[i, 0].set_ylabel(labels[i], rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return figure


def write(figure, path):
    """Writes a figure as PNG."""
    figure.savefig(path, dpi=120)


def _as_image(x):
    if x.ndim == 3 and x.shape[-1] == 1:
        return x[..., 0]
    if x.ndim == 2 or (x.ndim == 3 and x.shape[-1] in (3, 4)):
        return x
    return x.reshape(len(x) if x.ndim > 2 else 1, -1)
