"""Charts of any numbers: curves and bars."""

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from iwae_zoo.figures.parts import titled

__all__ = ["curves", "ratio_bars", "scaling"]


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
    titled(figure, title)
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
    titled(figure, title)
    return figure
