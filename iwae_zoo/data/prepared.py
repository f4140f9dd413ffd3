"""Images that TensorFlow Datasets has prepared."""

import math
import os

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from iwae_zoo.data import kinds, records, streamed
from iwae_zoo.data.dataset import Dataset
from iwae_zoo.data.splits import SPLITS, filled, three

__all__ = ["arrays", "load"]


def load(name, data_dir, stream_above=streamed.DEFAULT):
    """The data set "tfds:NAME" of `data.load`; it has to be prepared."""
    builder = _builder(name, data_dir)
    if not os.path.isdir(builder.data_dir):
        raise RuntimeError(f"The data set {name!r} is not prepared in {builder.data_dir}. {_how_to(name)}.")
    splits = [part for part in SPLITS if part in builder.info.splits]
    if "train" not in splits:
        raise ValueError(f"The data set {name!r} has no split 'train': it has {', '.join(builder.info.splits)}.")
    key = _image_key(name, builder.info.features)
    images = dict(zip(splits, _read(builder, splits, key, stream_above), strict=True))
    kind = kinds.seen(*images.values())
    title = f"The data set {name!r}"
    train, validation, test = filled(three(kinds.cast(images, kind, title)), title)
    return Dataset(name.replace("/", "_"), train, validation, test, kind)


def arrays(name, splits, data_dir, stream_above=streamed.DEFAULT):
    """The images of some splits of a data set; it is downloaded if it is not prepared.

    Returns:
      List of arrays [N, height, width, channels], or of `Rows`.

    Raises:
      FileNotFoundError: if there is no folder `data_dir`.
      RuntimeError: if it is neither prepared nor can be downloaded; the message says what to do.
    """
    # No download into what may be a slip of the pen.
    if data_dir is not None and not os.path.isdir(os.path.expanduser(data_dir)):
        raise FileNotFoundError(
            f"There is no folder {data_dir}, where the data set {name!r} was to be. Leave --data_dir out to have "
            "it downloaded into TensorFlow Datasets' own folder."
        )
    builder = _builder(name, data_dir)
    if not os.path.isdir(builder.data_dir):
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise RuntimeError(
                f"The data set {name!r} is not prepared in {builder.data_dir}, and it could not be downloaded "
                f"({type(error).__name__}). {_how_to(name)}; or use --dataset=digits, which needs no download."
            ) from error
    return _read(builder, splits, "image", stream_above)


def _builder(name, data_dir):
    import tensorflow_datasets as tfds  # Slow to import, and needed for these data sets only.

    try:
        # The copy on a public bucket is of no use without a network, and asking for it takes minutes to fail.
        return tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:  # Its own message lists a thousand names.
        raise ValueError(f"TensorFlow Datasets knows no data set {name!r}, and none is in its folder.") from error
    except (ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name!r} is no name of a data set of TensorFlow Datasets: {reason}") from error
    except json_format.ParseError as error:
        raise ValueError(f"What describes the data set {name!r} is damaged, prepare it again: {error}") from error


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


def _read(builder, splits, key, stream_above):
    """The images of each split: arrays, or, of a data set that is larger than so many GiB, `Rows`."""
    feature = builder.info.features[key]
    infos = [builder.info.splits[part] for part in splits]
    values = sum(info.num_examples for info in infos) * math.prod(feature.shape)
    if not streamed.is_streamed(values * np.dtype(feature.np_dtype).itemsize, stream_above):
        return [_gathered(builder, part, key) for part in splits]
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"The data set {builder.name!r} is too large for memory, by --stream_above={stream_above:g}, and can only "
            f"be streamed from files of the format tfrecord: received {builder.info.file_format.value}. Prepare it as "
            "tfrecord, or raise --stream_above."
        )

    def decode(examples):
        return tf.map_fn(
            lambda one: builder.info.features.deserialize_example(one)[key],
            examples,
            fn_output_signature=tf.TensorSpec(feature.shape, feature.tf_dtype),
        )

    name = f"the data set {builder.name!r}"
    return [
        records.rows(info.filepaths, info.shard_lengths, decode, feature.shape, feature.np_dtype, name)
        for info in infos
    ]


def _gathered(builder, part, key):
    import tensorflow_datasets as tfds

    # Shard after shard, as the rows are streamed.
    config = tfds.ReadConfig(interleave_cycle_length=1)
    examples = builder.as_dataset(split=part, read_config=config).map(lambda example: example[key])
    try:
        return np.concatenate([batch.numpy() for batch in examples.batch(1000)])
    except tf.errors.OpError as error:
        reason = error.message.partition("\n")[0]
        raise OSError(f"The data set {builder.name!r} is damaged, prepare it again: {reason}") from error
