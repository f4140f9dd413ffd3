"""Where x comes from: data sets by name or path, and their splits. Nothing here knows of a model."""

from iwae_zoo.data import kinds
from iwae_zoo.data.dataset import Dataset
from iwae_zoo.data.sources import BINARIZE, load, load_rows, names
from iwae_zoo.data.streamed import DEFAULT as DEFAULT_STREAM_ABOVE

__all__ = ["BINARIZE", "DEFAULT_STREAM_ABOVE", "Dataset", "kinds", "load", "load_rows", "names"]
