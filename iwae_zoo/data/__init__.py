"""Where x comes from: data sets by name or path, and their splits. Nothing here knows of a model."""

from iwae_zoo.data import kinds
from iwae_zoo.data.dataset import Dataset
from iwae_zoo.data.sources import BINARIZE, load, load_rows, names

__all__ = ["BINARIZE", "Dataset", "kinds", "load", "load_rows", "names"]
