"""Where x comes from: data sets by name or path, and their splits. Nothing here knows of a model."""

from iwae_zoo.data.dataset import Dataset, load, load_rows, names

__all__ = ["Dataset", "load", "load_rows", "names"]
