"""Arrays to matplotlib figures; nothing is computed here."""

from iwae_zoo.figures.article import estimates_over_cost, posterior_grid, snr_over_epochs, snr_slopes
from iwae_zoo.figures.charts import curves, ratio_bars, scaling
from iwae_zoo.figures.parts import write
from iwae_zoo.figures.samples import dispersion, image_grid, pairs, side_by_side
from iwae_zoo.figures.training import training_curves

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
