"""Images that TensorFlow Datasets has prepared."""

import os

import numpy as np

from iwae_zoo.data import kinds
from iwae_zoo.data.dataset import Dataset
from iwae_zoo.data.splits import SPLITS, three

__all__ = ["arrays", "load"]


def load(name, data_dir):
    """The data set "tfds:NAME" of `data.load`; it has to be prepared."""
    builder = _builder(name, data_dir)
    if not os.path.isdir(builder.data_dir):
        raise RuntimeError(f"The data set {name!r} is not prepared in {builder.data_dir}. {_how_to(name)}.")
    splits = [part for part in SPLITS if part in builder.info.splits]
    if "train" not in splits:
        raise ValueError(f"The data set {name!r} has no split 'train': it has {', '.join(builder.info.splits)}.")
    key = _image_key(name, builder.info.features)
    images = {part: _read(builder, part, key) for part in splits}
    kind = kinds.seen(*images.values())
    images = {part: kinds.cast(array, kind, f"The data set {name!r}") for part, array in images.items()}
    train, validation, test = three(images)
    return Dataset(name.replace("/", "_"), train, validation, test, kind)


def arrays(name, splits, data_dir):
    """The images of some splits of a data set; it is downloaded if it is not prepared.

    Returns:
      List of arrays [N, height, width, channels].

    Raises:
      RuntimeError: if it is neither prepared nor can be downloaded; the message says what to do.
    """
    builder = _builder(name, data_dir)
    if not os.path.isdir(builder.data_dir):
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise RuntimeError(
                f"The data set {name!r} is not prepared in {builder.data_dir}, and it could not be downloaded "
                f"({type(error).__name__}). {_how_to(name)}; or use --dataset=digits, which needs no download."
            ) from error
    return [_read(builder, part, "image") for part in splits]


def _builder(name, data_dir):
    import tensorflow_datasets as tfds  # Slow to import, and needed for these data sets only.

    try:
        # The copy on a public bucket is of no use without a network, and asking for it takes minutes to fail.
        return tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:  # Its own message lists a thousand names.
        raise ValueError(f"TensorFlow Datasets knows no data set {name!r}, and none is in its folder.") from error


def _how_to(name):
    return (
        f"On a machine with a network run `python -c \"import tensorflow_datasets as tfds; tfds.load('{name}', "
        "data_dir='DIR')\"`, copy DIR here and pass --data_dir=DIR"
    )


def _image_key(name, features):
    """Name of the one feature that is an image."""
    import tensorflow_datasets as tfds

    images = {key: feature.shape for key, feature in features.items() if isinstance(feature, tfds.features.Image)}
    key = "image" if "image" in images else next(iter(images)) if len(images) == 1 else None
    if key is None or None in images[key]:
        raise ValueError(
            f"The data set {name!r} must have an image of one size: its images are {images or 'none'}. Save an array "
            "[N, height, width, channels] as a .npy file instead."
        )
    return key


def _read(builder, part, key):
    examples = builder.as_dataset(split=part).map(lambda example: example[key])
    return np.concatenate([batch.numpy() for batch in examples.batch(1000)])
