"""The article's figures: signal-to-noise ratios, posteriors of a two-dimensional latent, log p(x) over its cost."""

import matplotlib.figure
import numpy as np

from iwae_zoo.figures.parts import as_image, titled

__all__ = ["estimates_over_cost", "posterior_grid", "snr_over_epochs", "snr_slopes"]


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
    titled(figure, title)
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
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
    for axes in panels.values():
        axes.grid(alpha=0.3)
        axes.margins(y=0.4)  # Room for the legend.
        axes.legend(fontsize="small")
    titled(figure, f"{title}; bars of one standard error")
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
            inset.imshow(as_image(example["x"]), cmap="gray_r", vmin=0, vmax=1)
            inset.set(xticks=[], yticks=[])
        for axis, label in zip(
            grid[3 * block : 3 * block + 3, 0], ("posterior", "encoder q", "posterior and\ndraws of q^IS"), strict=True
        ):
            axis.set_ylabel(f"{name}\n{label}\n$z_2$")
    for axis in grid[-1]:
        axis.set_xlabel("$z_1$")
    titled(figure, title)
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
