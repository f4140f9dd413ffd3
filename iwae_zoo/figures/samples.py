"""What models draw, beside the data."""

import matplotlib.figure
import matplotlib.patches
import numpy as np

from iwae_zoo.figures.parts import as_image, plain, short, titled

__all__ = ["dispersion", "image_grid", "pairs", "side_by_side"]


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
    axes = figure.subplots()  # One for all: fifty of them take most of a second.
    height, width = as_image(rows[0, 0]).shape[:2]
    pitch = 1.08 * max(height, width)
    for i in range(count):
        top = i * pitch - height / 2
        for j in range(columns):
            left = j * pitch - width / 2
            image = np.clip(as_image(rows[i, j]), 0, 1)
            axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, extent=(left, left + width, top + height, top))
            axes.add_patch(matplotlib.patches.Rectangle((left, top), width, height, fill=False, linewidth=0.8))
        if labels:
            axes.text(-0.6 * pitch, i * pitch, plain(labels[i]), ha="right", va="center")
    axes.set(xlim=(-0.55 * pitch, (columns - 0.45) * pitch), ylim=((count - 0.45) * pitch, -0.55 * pitch))
    axes.axis("off")
    titled(figure, title)
    return figure


def pairs(columns, names, title):
    """Scatter plots of pairs of columns, what is compared side by side.

    Args:
      columns: dict from a label to an array [N, C].
      names: sequence of C str, the columns' own.
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    shown = [(i, j) for i in range(len(names)) for j in range(i)] or [(0, 0)]
    figure = matplotlib.figure.Figure(figsize=(1 + 3 * len(columns), 0.7 + 2.2 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), len(columns), squeeze=False, sharex="row", sharey="row")
    for row, (i, j) in zip(grid, shown, strict=True):
        for axes, (label, values) in zip(row, columns.items(), strict=True):
            axes.plot(values[:, j], values[:, i], ".", markersize=3, alpha=0.4)
            axes.set(title=label, xlabel=short(names[j]), ylabel=short(names[i]))
    titled(figure, title)
    return figure


def dispersion(columns, title):
    """Variance of each column, or pixel, of counts against its mean, beside Poisson's.

    Args:
      columns: dict from a label to (means [C], variances [C]).
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    figure = matplotlib.figure.Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    titled(figure, title)
    _moments(axes, columns)
    return figure


def _moments(axes, columns):
    """Variances against means, beside Poisson's, for `columns` as in `dispersion`."""
    positive = np.concatenate([mean[mean > 0] for mean, _ in columns.values()])
    ends = [positive.min(), positive.max()] if len(positive) else [1.0, 1.0]
    axes.plot(ends, ends, "k:", linewidth=1, label="Poisson")
    for label, (mean, variance) in columns.items():
        axes.plot(mean, variance, ".", alpha=0.6, label=label)
    axes.set(xscale="log", yscale="log", xlabel="mean", ylabel="variance")
    axes.grid(alpha=0.3, which="both")
    axes.legend()


def side_by_side(panels, title):
    """Data and what models draw, one panel for each model.

    Args:
      panels: dict from a title to a dict of one of: "images", from a label to an array [C, H, W, channels] of values in
        [0, 1]; "pairs", from a label to an array [N, 2] of two columns, with their "names"; "moments", from a label
        to the means and variances of columns, (means [C], variances [C]).
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    figure = matplotlib.figure.Figure(figsize=(12, 0.6 + 2.9 * -(-len(panels) // 2)), layout="constrained")
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.axis("off")
    for axes, (name, panel) in zip(grid, panels.items(), strict=False):
        axes.set_title(plain(name), fontsize="medium")
        if "images" in panel:
            rows = np.stack(list(panel["images"].values()))  # [R, C, H, W, channels]
            count, _, height = rows.shape[:3]
            framed = np.pad(rows, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=0.5)
            tiles = np.concatenate([np.concatenate(list(row), axis=1) for row in framed])
            axes.imshow(np.clip(as_image(tiles), 0, 1), cmap="gray_r", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks((np.arange(count) + 0.5) * (height + 2) - 0.5, list(panel["images"]))
        elif "pairs" in panel:
            for label, values in panel["pairs"].items():
                axes.plot(*values.T, ".", markersize=4, alpha=0.5, label=label)
            axes.set(**{f"{axis}label": short(name) for axis, name in zip("xy", panel["names"], strict=True)})
            axes.legend()
        else:
            _moments(axes, panel["moments"])
    titled(figure, title)
    return figure
