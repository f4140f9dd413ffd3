"""Arrays to matplotlib figures; nothing is computed here."""

import math
import textwrap

import matplotlib.figure
import matplotlib.patches
import matplotlib.ticker
import numpy as np

from iwae_zoo._files import whole

__all__ = [
    "curves",
    "dispersion",
    "estimates_over_cost",
    "image_grid",
    "pairs",
    "posterior_grid",
    "ratio_bars",
    "scaling",
    "side_by_side",
    "snr_over_epochs",
    "snr_slopes",
    "training_curves",
    "write",
]

# Letters of a title in an inch, and the height of its lines, inches.
_LETTERS, _LINE = 9, 0.2


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
    tail = [value for value in tail if math.isfinite(value)]  # A validation example may be outside the support.
    if tail:
        margin = 0.05 * (max(tail) - min(tail)) + 1e-3
        axes.set_ylim(min(tail) - margin, max(tail) + margin)
    axes.set(xlabel="epoch", ylabel="bound on log p(x) (nats per example)")
    _title(figure, title)
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
    axes = figure.subplots()  # One for all: fifty of them take most of a second.
    height, width = _as_image(rows[0, 0]).shape[:2]
    pitch = 1.08 * max(height, width)
    for i in range(count):
        top = i * pitch - height / 2
        for j in range(columns):
            left = j * pitch - width / 2
            image = np.clip(_as_image(rows[i, j]), 0, 1)
            axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, extent=(left, left + width, top + height, top))
            axes.add_patch(matplotlib.patches.Rectangle((left, top), width, height, fill=False, linewidth=0.8))
        if labels:
            axes.text(-0.6 * pitch, i * pitch, labels[i], ha="right", va="center")
    axes.set(xlim=(-0.55 * pitch, (columns - 0.45) * pitch), ylim=((count - 0.45) * pitch, -0.55 * pitch))
    axes.axis("off")
    _title(figure, title)
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
            axes.set(title=label, xlabel=_plain(names[j]), ylabel=_plain(names[i]))
    _title(figure, title)
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
    _title(figure, title)
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


def snr_over_epochs(curves, title):
    """Signal-to-noise ratio of both networks' gradients over the epochs.

    Args:
      curves: dict from a label to a dict of "epoch" [E], and of "encoder" and "decoder", each (mean [E], error [E]).
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    figure = matplotlib.figure.Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, side in zip(panels, ("encoder", "decoder"), strict=True):
        for number, (label, curve) in enumerate(curves.items()):
            mean, error = curve[side]
            style = "-" if number < 5 else "--"
            axes.plot(curve["epoch"], mean, style, color=f"C{number}", label=label)
            axes.fill_between(curve["epoch"], mean - error, mean + error, color=f"C{number}", alpha=0.15, linewidth=0)
        axes.set(yscale="log", xlabel="epoch", ylabel="SNR, median over parameters", title=f"{side}'s gradient")
        axes.grid(alpha=0.3, which="both")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    _title(figure, title)
    return figure


def curves(grid, title):
    """Panels of curves with one legend.

    Args:
      grid: list of rows, lists of dicts: "title"; "xlabel"; "ylabel"; "curves", from a label to rows (x, y, error) or
        (x, y, low, high), in which NaN is no error; "reference", where to draw a horizontal line, or None.
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    size = (max(8.0, 4.0 * len(grid[0])), 1.2 + 3.0 * len(grid))
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    places = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    labels = list(dict.fromkeys(label for row in grid for panel in row for label in panel["curves"]))
    handles = {}
    for axes, panel in zip(places.flat, (panel for row in grid for panel in row), strict=True):
        for label, points in panel["curves"].items():
            x, y, *error = np.asarray(points, float).T
            bars = np.nan_to_num(error[0] if len(error) == 1 else np.abs(np.stack(error) - y))
            number = labels.index(label)
            style = {"marker": "osD^vPX*<>"[number % 10], "color": f"C{number % 10}", "markersize": 4}
            handles[label] = axes.errorbar(x, y, yerr=bars, capsize=2, linewidth=1, **style)
        if panel["reference"] is not None:
            axes.axhline(panel["reference"], color="black", linestyle=":", linewidth=1)
        axes.set(xlabel=panel["xlabel"], ylabel=panel["ylabel"], title=panel["title"])
        axes.grid(alpha=0.3)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize="small")
    _title(figure, title)
    return figure


def posterior_grid(panels, extent, title):
    """True posteriors of a two-dimensional latent, beside the encoder's and the resampled ones.

    Args:
      panels: dict from a model's name to a list with one dict for each example: "x", an example; "posterior" and
        "encoder", densities [G, G] on the grid (first axis z_2); "draws" [S, 2], resampled z.
      extent: (low, high), the range of both axes of the grid.
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    count = len(next(iter(panels.values())))
    figure = matplotlib.figure.Figure(figsize=(2.2 * count + 1, 2.3 * 3 * len(panels)), layout="constrained")
    grid = figure.subplots(3 * len(panels), count, squeeze=False)
    for block, (name, examples) in enumerate(panels.items()):
        for column, example in enumerate(examples):
            axes = grid[3 * block : 3 * block + 3, column]
            for axis, image in zip(axes, (example["posterior"], example["encoder"], example["posterior"]), strict=True):
                axis.imshow(image, origin="lower", extent=(*extent, *extent), cmap="viridis")
                axis.set(xticks=(-2, 0, 2), yticks=(-2, 0, 2))
                axis.label_outer()
            z = example["draws"]
            axes[2].plot(z[:, 0], z[:, 1], ".", color="white", markersize=2, alpha=0.6)
            axes[2].set(xlim=extent, ylim=extent)
            inset = axes[0].inset_axes((0.72, 0.72, 0.28, 0.28))
            inset.imshow(_as_image(example["x"]), cmap="gray_r", vmin=0, vmax=1)
            inset.set(xticks=[], yticks=[])
        for axis, label in zip(
            grid[3 * block : 3 * block + 3, 0], ("posterior", "encoder q", "posterior and\ndraws of q^IS"), strict=True
        ):
            axis.set_ylabel(f"{name}\n{label}\n$z_2$")
    for axis in grid[-1]:
        axis.set_xlabel("$z_1$")
    _title(figure, title)
    return figure


def snr_slopes(curves, title):
    """SNR against the number of particles, with the theory's slopes through the first points.

    Args:
      curves: list of dicts: "panel", its title; "label"; "x", "snr" and "error", each [N]; "xlabel"; "slope",
        the fitted exponent; "slope_error"; "theory", the theory's exponent or None.
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    names = list(dict.fromkeys(curve["panel"] for curve in curves))
    figure = matplotlib.figure.Figure(figsize=(5 * len(names), 4.8), layout="constrained")
    panels = dict(zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True))
    for number, curve in enumerate(curves):
        axes = panels[curve["panel"]]
        x, snr = np.asarray(curve["x"], float), np.asarray(curve["snr"])
        label = f"{curve['label']}: slope {curve['slope']:.3f} +- {curve['slope_error']:.3f}"
        axes.errorbar(x, snr, yerr=curve["error"], marker="o", color=f"C{number}", label=label)
        if curve["theory"] is not None:
            line = snr[0] * (x / x[0]) ** curve["theory"]
            axes.plot(x, line, "k:", linewidth=1, label=f"theory: slope {curve['theory']:+.1f}")
        axes.set(xscale="log", yscale="log", xlabel=curve["xlabel"], ylabel="SNR", title=curve["panel"])
    for axes in panels.values():
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.margins(y=0.4)  # Room for the legend.
        axes.legend(fontsize="small")
    _title(figure, f"{title}; bars of one standard error")
    return figure


def estimates_over_cost(curves, title):
    """Estimates of one quantity against what they cost.

    Args:
      curves: dict from a method to a dict of "cost", decoder passes, "log_prob" and "error", nats; each [N].
      title: str.

    Returns:
      `matplotlib.figure.Figure`.
    """
    figure = matplotlib.figure.Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for label, curve in curves.items():
        axes.errorbar(curve["cost"], curve["log_prob"], yerr=curve["error"], marker="o", capsize=3, label=label)
    axes.set(
        xscale="log",
        xlabel="decoder passes per example, forward and backward",
        ylabel="mean log p(x) (nats per example)",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    axes.set_title(f"{title}\nbars of one standard error by the method's own account", fontsize="medium")
    return figure


def ratio_bars(rows, title, xlabel, reference=1.0):
    """Horizontal bars with their numbers.

    Args:
      rows: dict from a label to a positive number, from top to bottom.
      title: str.
      xlabel: str.
      reference: where to draw a vertical line; None for none.

    Returns:
      `matplotlib.figure.Figure`.
    """
    figure = matplotlib.figure.Figure(figsize=(9, 1.3 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(rows), list(rows.values()), color="C0")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    if reference is not None:
        axes.axvline(reference, color="black", linestyle=":", linewidth=1)
    axes.set_xlabel(xlabel)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    _title(figure, title)
    return figure


def scaling(panels):
    """Curves on logarithmic axes.

    Args:
      panels: list of dicts: "title"; "xlabel"; "ylabel"; "curves", from a label to pairs (x, y) of positive numbers;
        optionally "slope", the exponent of a dotted line through the last point of the first curve.

    Returns:
      `matplotlib.figure.Figure`.
    """
    figure = matplotlib.figure.Figure(figsize=(5.5 * len(panels), 4.5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for label, points in panel["curves"].items():
            axes.plot(*np.reshape(points, (-1, 2)).T, marker="o", label=label)
        first = np.reshape(next(iter(panel["curves"].values())), (-1, 2))
        if "slope" in panel and len(first):
            x, y = first.T
            axes.plot(x, y[-1] * (x / x[-1]) ** panel["slope"], "k:", linewidth=1, label=f"slope {panel['slope']}")
        ticks = sorted({x for points in panel["curves"].values() for x, _ in points})
        axes.set(xscale="log", yscale="log", xlabel=panel["xlabel"], ylabel=panel["ylabel"], title=panel["title"])
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes.xaxis.minorticks_off()
        for choose in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            choose(matplotlib.ticker.LogFormatter())  # Plain numbers instead of powers.
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    return figure


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
        axes.set_title(name, fontsize="medium")
        if "images" in panel:
            rows = np.stack(list(panel["images"].values()))  # [R, C, H, W, channels]
            count, _, height = rows.shape[:3]
            framed = np.pad(rows, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=0.5)
            tiles = np.concatenate([np.concatenate(list(row), axis=1) for row in framed])
            axes.imshow(np.clip(_as_image(tiles), 0, 1), cmap="gray_r", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks((np.arange(count) + 0.5) * (height + 2) - 0.5, list(panel["images"]))
        elif "pairs" in panel:
            for label, values in panel["pairs"].items():
                axes.plot(*values.T, ".", markersize=4, alpha=0.5, label=label)
            axes.set(**{f"{axis}label": _plain(name) for axis, name in zip("xy", panel["names"], strict=True)})
            axes.legend()
        else:
            _moments(axes, panel["moments"])
    _title(figure, title)
    return figure


def write(figure, path):
    """Writes a figure as PNG, whole or not at all."""
    with whole(path) as partial:
        figure.savefig(partial, dpi=120)


def _title(figure, title):
    """Writes a title over a figure, in as many lines as it needs: names of runs can be long."""
    lines = textwrap.wrap(_plain(title), int(_LETTERS * figure.get_figwidth()))
    figure.set_figheight(figure.get_figheight() + _LINE * (len(lines) - 1))
    figure.suptitle("\n".join(lines))


def _plain(text):
    """Text that users chose, in which a dollar is a dollar and begins no formula."""
    return text.replace("$", r"\$")


def _as_image(x):
    """Grey [H, W], or [H, W, 3] in colours: other channels than three have no colours, and their mean is shown."""
    if x.ndim == 3 and x.shape[-1] != 3:
        return x.mean(axis=-1)
    return x if x.ndim in (2, 3) else x.reshape(len(x) if x.ndim > 2 else 1, -1)
