import itertools
import zipfile

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

from iwae_zoo import data, training


def dataset(values=None, kind="intensity"):
    values = np.random.default_rng(0).random((50, 2, 3)).astype("float32") if values is None else values
    return data.Dataset("toy", values[:30], values[30:40], values[40:], kind)


def epochs(source, batch_size, seed, count, first_epoch=0):
    steps = source.steps_per_epoch(batch_size)
    batches = source.training_batches(batch_size, seed, first_epoch).take(count * steps).as_numpy_iterator()
    parts = list(batches)
    return [parts[i * steps : (i + 1) * steps] for i in range(count)]


def test_digits():
    digits = data.load("digits")
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1258, 180, 359)
    assert digits.data_shape == (8, 8, 1)
    assert digits.train.min() == 0 and digits.train.max() == 1
    assert digits.kind == "intensity"
    # Every image is in exactly one split.
    together = np.concatenate([digits.train, digits.validation, digits.test])
    images = sklearn.datasets.load_digits().images / 16
    assert sorted(map(bytes, together.reshape(1797, 64))) == sorted(map(bytes, images.reshape(1797, 64).astype("f4")))


def test_an_epoch_has_every_example_once():
    source = dataset((np.arange(50)[:, None] >> np.arange(6) & 1).astype("float32"), kind="binary")
    (batches,) = epochs(source, 8, seed=0, count=1)
    assert [len(batch) for batch in batches] == [8, 8, 8, 6]
    rows = np.concatenate(batches)
    assert sorted(map(tuple, rows)) == sorted(map(tuple, source.train))
    assert not np.array_equal(rows, source.train)


def test_binarisation_is_fresh_in_training_and_fixed_in_evaluation():
    source = dataset()
    first, second = epochs(source, 30, seed=0, count=2)
    assert set(np.unique(first)) == {0.0, 1.0}
    assert not np.array_equal(np.sort(first[0], axis=0), np.sort(second[0], axis=0))
    np.testing.assert_array_equal(source.evaluation_array("test"), source.evaluation_array("test"))
    assert not np.array_equal(source.evaluation_array("test", seed=1), source.evaluation_array("test"))


def test_each_epoch_has_an_order_of_its_own():
    first, second = epochs(dataset((np.arange(50)[:, None] >> np.arange(6) & 1).astype("float32"), "binary"), 30, 0, 2)
    assert not np.array_equal(first[0], second[0])


def test_each_batch_of_an_epoch_draws_anew():
    """Of equal rows, which only their draws tell apart; and so does each split."""
    source = dataset(np.full((50, 20, 10), 0.5, "float32"))
    (batches,) = epochs(source, 10, seed=0, count=1)
    splits = [source.evaluation_array(name)[:10] for name in ("train", "validation", "test")]
    for one, other in itertools.combinations([*batches, *splits], 2):
        assert not np.array_equal(one, other)


def test_binarisation_has_the_intensities_as_probabilities():
    source = dataset(np.full((50, 1000), 0.3, "float32"))
    assert source.evaluation_array("train").mean() == pytest.approx(0.3, abs=0.01)
    assert np.mean(epochs(source, 30, 0, 1)) == pytest.approx(0.3, abs=0.01)


def test_an_epoch_depends_on_seed_and_number_alone():
    source = dataset()
    going_on = epochs(source, 8, seed=3, count=3)[2]
    resumed = epochs(source, 8, seed=3, count=1, first_epoch=2)[0]
    other = epochs(source, 8, seed=4, count=1, first_epoch=2)[0]
    for a, b in zip(going_on, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(other[0], resumed[0])


def test_bytes_are_intensities():
    source = dataset(np.full((50, 4), 255, np.uint8))
    assert source.evaluation_array("train").min() == 1.0
    np.testing.assert_array_equal(source.train_mean, 1.0)


def test_npy(tmp_path):
    values = np.random.default_rng(0).random((50, 5, 4))
    np.save(tmp_path / "own.npy", values)
    source = data.load(str(tmp_path / "own.npy"))
    assert (source.name, source.data_shape, source.kind) == ("own", (5, 4), "intensity")
    assert [len(split) for split in (source.train, source.validation, source.test)] == [40, 5, 5]
    together = np.concatenate([source.train, source.validation, source.test])
    np.testing.assert_allclose(np.sort(together.ravel()), np.sort(values.astype("float32").ravel()))


def test_npz(tmp_path):
    rng = np.random.default_rng(0)
    binary = (rng.random((60, 4)) < 0.5).astype(float)
    np.savez(tmp_path / "own.npz", train=binary[:40], test=binary[40:])
    source = data.load(str(tmp_path / "own.npz"))
    assert [len(split) for split in (source.train, source.validation, source.test)] == [36, 4, 20]
    assert source.kind == "binary"
    np.testing.assert_array_equal(source.evaluation_array("test"), binary[40:])
    np.savez(tmp_path / "one.npz", anything=binary)
    assert len(data.load(str(tmp_path / "one.npz")).train) == 48


def test_the_arrays_of_a_file_are_read_alike(tmp_path):
    """Whether numbers stand for 1 by 255 or by themselves is one decision for all; nothing is dropped."""
    grey = np.linspace(0, 255, 120).astype(np.uint8).reshape(30, 4)
    np.savez(tmp_path / "mixed.npz", train=grey, test=grey / 255.0)
    with pytest.raises(ValueError, match="bytes in all arrays or in none: received train: uint8, test: float64"):
        data.load(str(tmp_path / "mixed.npz"), kind="intensity")
    np.savez(tmp_path / "whole.npz", train=grey.astype(int), test=np.array([[0, 1, 0, 1]] * 9))
    np.testing.assert_array_equal(data.load(str(tmp_path / "whole.npz"), kind="byte").test[0], [0, 1, 0, 1])
    np.savez(tmp_path / "val.npz", train=grey, val=grey)
    with pytest.raises(ValueError, match=r"'validation' and 'test': received \['train', 'val'\]"):
        data.load(str(tmp_path / "val.npz"))


def test_numbers_that_float32_cannot_tell_apart(tmp_path):
    noise = np.random.default_rng(0).normal(size=(60, 2))
    np.save(tmp_path / "times.npy", [0.0, 1.7e9] + 10.0 * noise)
    with pytest.warns(UserWarning, match="numbers of column 1 differ by so little") as warned:
        data.load(str(tmp_path / "times.npy"))
    assert len(warned) == 1
    np.save(tmp_path / "whole.npy", (1.7e9 + 10.0 * noise[:, :1]).astype(np.int32))
    with pytest.warns(UserWarning, match="numbers of column 0 differ by so little"):
        data.load(str(tmp_path / "whole.npy"))


def test_files_that_are_not_what_they_are_called(tmp_path):
    x = np.linspace(0.0, 1.0, 120).reshape(30, 4)
    np.savez(tmp_path / "own.npz", x)
    (tmp_path / "renamed.npy").write_bytes((tmp_path / "own.npz").read_bytes())
    np.save(tmp_path / "own.npy", x)
    (tmp_path / "renamed.npz").write_bytes((tmp_path / "own.npy").read_bytes())
    for name in ("renamed.npy", "renamed.npz"):
        np.testing.assert_allclose(data.load(str(tmp_path / name), binarize="none").train.max(), 1.0)
    (tmp_path / "short.npz").write_bytes((tmp_path / "own.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read as a .npz file of numbers"):
        data.load(str(tmp_path / "short.npz"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((20, 3), np.nan), "holds NaN only"),
        (np.full((20, 3), np.inf), "must hold finite numbers: received infinity"),
        (np.zeros(20), r"must have shape \[N, ...\]"),
        (np.zeros((0, 3)), "at least one example"),
        (np.zeros((2, 3)), "too few examples"),
        (np.array([["a", "b"]] * 20), "must hold real numbers: received dtype <U1"),
        (np.zeros((20, 3), complex), "real numbers"),
        (np.zeros((20, 3), "timedelta64[s]"), "real numbers"),
        (np.full((20, 3), 1e39), "to be of kind real: received values from 1e[+]39"),
    ],
)
def test_unusable_arrays(array, message, tmp_path):
    np.save(tmp_path / "own.npy", array)
    with pytest.raises(ValueError, match=message):
        data.load(str(tmp_path / "own.npy"))


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([[True, False]] * 20), "binary"),
        (np.array([[0, 1]] * 20, np.uint8), "binary"),
        (np.array([[0, 255]] * 20, np.uint8), "byte"),
        (np.array([[0.0, 0.5]] * 20), "intensity"),
        (np.array([[0, 255]] * 20), "count"),
        (np.array([[0.0, 3.0]] * 20, np.float32), "count"),
        (np.array([[-1, 3]] * 20), "real"),
        (np.array([[0.0, 3.5]] * 20, np.float16), "real"),
        (np.array([[3.0, 2.0**25]] * 20, np.float32), "real"),  # As all of float32 are whole there.
        (np.array([[3, 2**25]] * 20), "count"),
    ],
)
def test_the_kind_is_seen(array, kind, tmp_path):
    np.save(tmp_path / "own.npy", array)
    source = data.load(str(tmp_path / "own.npy"))
    assert source.kind == kind
    assert source.kind_of_x == ("binary" if kind == "intensity" else kind)
    assert source.description.startswith(f"own: 16 / 2 / 2 examples of 2, kind {kind} (")
    if kind != "intensity":  # The numbers as they are, whatever they are kept as.
        np.testing.assert_array_equal(source.evaluation_array("test"), array[:2])
        np.testing.assert_array_equal(epochs(source, 2, 0, 1)[0][0], array[:2])
        assert source.evaluation_array("test").dtype == np.float32


def test_numbers_below_those_of_single_precision_are_zeros(tmp_path):
    """As processors have them, and as in tables."""
    np.save(tmp_path / "tiny.npy", np.array([[1.0, 1e-40], [-1e-39, 2.0]] * 10, np.float32))
    assert set(np.ravel(data.load(str(tmp_path / "tiny.npy"), kind="real").train)) == {0.0, 1.0, 2.0}


def test_a_data_set_by_another_path_is_the_same(tmp_path, monkeypatch):
    np.save(tmp_path / "own.npy", np.ones([20, 2]))
    there = {"dataset": "own.npy", "missing": 0.5, "kind": "real"}
    monkeypatch.chdir(tmp_path)
    for name in ("./own.npy", str(tmp_path / "own.npy")):
        assert training.data_settings(there, name, kind="count")["missing"] == 0.5
    assert training.data_settings(there, "digits")["missing"] is None
    assert training.data_settings({}, "digits")["missing"] is None


def test_the_kind_is_overridden(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(64, 4)
    np.save(tmp_path / "grey.npy", grey)
    np.save(tmp_path / "unit.npy", grey / 255.0)
    for name in ("grey", "unit"):
        path = str(tmp_path / f"{name}.npy")
        as_bytes, as_they_are = data.load(path, kind="byte"), data.load(path, kind="intensity", binarize="none")
        together = np.concatenate([as_bytes.evaluation_array(split) for split in ("train", "validation", "test")])
        np.testing.assert_array_equal(np.sort(together.ravel()), np.arange(256.0))
        np.testing.assert_allclose(as_they_are.evaluation_array("test") * 255, as_bytes.evaluation_array("test"), 1e-6)
        np.testing.assert_allclose(as_they_are.training_values * 255, as_bytes.training_values, 1e-6)
    assert data.load(str(tmp_path / "grey.npy"), kind="class").kind == "class"
    with pytest.raises(ValueError, match=r"must hold values in \[0, 1\] to be of kind intensity.*from 0 to 300"):
        np.save(tmp_path / "large.npy", np.array([[0, 300]] * 20))
        data.load(str(tmp_path / "large.npy"), kind="intensity")
    with pytest.raises(ValueError, match="The data set digits.* must hold 0 and 1 to be of kind binary"):
        data.load("digits", kind="binary")
    with pytest.raises(ValueError, match="Unknown kind of data: received 'bytes'. Did you mean 'byte'"):
        data.load("digits", kind="bytes")


def test_binarize():
    dynamic, fixed, none = (data.load("digits", binarize=how) for how in data.BINARIZE)
    assert [source.kind_of_x for source in (dynamic, fixed, none)] == ["binary", "binary", "intensity"]
    # The same test set, drawn once either way.
    np.testing.assert_array_equal(dynamic.evaluation_array("test"), fixed.evaluation_array("test"))
    assert "binarised afresh" in dynamic.description
    np.testing.assert_array_equal(none.evaluation_array("test"), none.test)
    first, second = (np.concatenate(epoch) for epoch in epochs(fixed, 100, 0, 2))
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(second, axis=0))
    with pytest.raises(ValueError, match="binarize='none' is for data of kind intensity: digits is of kind byte"):
        data.load("digits", kind="byte", binarize="none")
    with pytest.raises(ValueError, match="Unknown binarize: received 'always'"):
        data.load("digits", binarize="always")


@pytest.mark.slow
def test_prepared_images(tmp_path):
    import tensorflow_datasets as tfds

    images = np.random.default_rng(0).integers(0, 256, (60, 4, 5, 3), dtype=np.uint8)

    def store(name, ordered=True, **shapes):
        features = tfds.features.FeaturesDict({key: tfds.features.Image(shape=shape) for key, shape in shapes.items()})
        splits = {
            part: tf.data.Dataset.from_tensor_slices({key: images[rows] for key in shapes})
            for part, rows in (("train", slice(50)), ("test", slice(50, None)))
        }
        shards = tfds.download.DownloadConfig(num_shards=2)  # Of 25 rows: more than are read before the next shard's.
        options = {"data_dir": tmp_path, "disable_shuffling": ordered, "download_config": shards}
        tfds.dataset_builders.store_as_tfds_dataset(name, "1.0.0", features, splits, **options)

    store("colours", picture=(4, 5, 3))
    source = data.load("tfds:colours", str(tmp_path))
    assert (source.name, source.kind, source.data_shape) == ("colours", "byte", (4, 5, 3))
    assert [len(part) for part in (source.train, source.validation, source.test)] == [45, 5, 10]
    np.testing.assert_array_equal(source.evaluation_array("test"), images[50:])
    assert data.load("tfds:colours", str(tmp_path), kind="intensity").kind_of_x == "binary"
    store("mixed", ordered=False, picture=(4, 5, 3))  # As most are: by default shards are read in turn.
    source, streams = (data.load("tfds:mixed", str(tmp_path), stream_above=above) for above in (1.0, 0.0))
    assert streams.description == source.description.replace("255)", "255), streamed")
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(streams.evaluation_array(split), source.evaluation_array(split))
    batches = [next(each.training_batches(20, seed=1).as_numpy_iterator()) for each in (streams, source)]
    np.testing.assert_array_equal(*batches)
    store("pairs", left=(4, 5, 3), right=(4, 5, 3))
    with pytest.raises(ValueError, match="must have an image of one size: its images are"):
        data.load("tfds:pairs", str(tmp_path))
    with pytest.raises(ValueError, match="TensorFlow Datasets knows no data set 'colors'"):
        data.load("tfds:colors", str(tmp_path))
    with pytest.raises(RuntimeError, match="'kmnist' is not prepared in .*On a machine with a network"):
        data.load("tfds:kmnist", str(tmp_path))
    folder = tmp_path / "colours" / "1.0.0"
    shard = min(folder.glob("*train*"))
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(OSError, match="The data set 'colours' is damaged, prepare it again"):
        data.load("tfds:colours", str(tmp_path))
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="What describes the data set 'colours' is damaged"):
        data.load("tfds:colours", str(tmp_path))


def test_unusable_files(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    for name in ("text.npy", "text.npz"):
        with pytest.raises(ValueError, match="cannot be read as a .np. file of numbers"):
            data.load(str(tmp_path / name))
    np.save(tmp_path / "cut.npy", np.zeros((20, 3)))
    header = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(header[:40] + bytes(88) + header[128:])
    with pytest.raises(ValueError, match=r"cut.npy cannot be read as a \.npy file of numbers"):
        data.load(str(tmp_path / "cut.npy"))
    with zipfile.ZipFile(tmp_path / "table.npz", "w") as archive:
        archive.writestr("table.csv", "a,b")
    with pytest.raises(ValueError, match="must be an array of real numbers: received a file of something else"):
        data.load(str(tmp_path / "table.npz"))
    np.save(tmp_path / "one.npy", 1.0)
    for above in (4.0, 0.0):
        with pytest.raises(ValueError, match=r"shape \[N, ...\]|one number and no rows"):
            data.load(str(tmp_path / "one.npy"), stream_above=above)
    np.savez(tmp_path / "names.npz", x=np.zeros((20, 3)), y=np.zeros((20, 3)))
    with pytest.raises(ValueError, match=r"received \['x', 'y'\]"):
        data.load(str(tmp_path / "names.npz"))
    np.savez(tmp_path / "shapes.npz", train=np.zeros((20, 3)), test=np.zeros((20, 4)))
    with pytest.raises(ValueError, match="must agree in all but the first axis"):
        data.load(str(tmp_path / "shapes.npz"))
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        data.load(str(tmp_path / "pickled.npy"))
    with pytest.raises(FileNotFoundError, match="There is no data file 'nowhere.npy'"):
        data.load("nowhere.npy")
    with pytest.raises(ValueError, match="Did you mean 'mnist'"):
        data.load("minst")
    with pytest.raises(ValueError, match="Unknown split"):
        dataset().evaluation_array("tset")


def test_what_to_do_without_a_network(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def no_network(self, **kwargs):
        raise ConnectionError

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    with pytest.raises(
        RuntimeError, match=r"not prepared in .*could not be downloaded \(ConnectionError\).*--data_dir"
    ):
        data.load("mnist", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere.*'mnist'.*Leave --data_dir out"):
        data.load("mnist", data_dir=str(tmp_path / "nowhere"))


def test_rows_of_a_file(tmp_path):
    """As they are; and of a file that holds none, what is wrong with it."""
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.uint8).reshape(3, 2))
    np.testing.assert_array_equal(data.load_rows(path, None), np.arange(6.0).reshape(3, 2))
    np.savez(tmp_path / "x.npz", np.zeros([100, 2]))
    archive = (tmp_path / "x.npz").read_bytes()
    for content, message in (
        (archive, "must be a .npy file with one array"),
        (archive[:-40], "cannot be read as .npy"),
        (b"", "cannot be read as .npy"),
        (path.read_bytes()[:-1], "cannot be read as .npy"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            data.load_rows(path, None)
    for wrong, message in (
        (np.zeros(3), "must have shape"),
        (np.zeros([0, 2]), "at least one example"),
        (1j * np.ones([2, 2]), "real"),
    ):
        np.save(path, wrong)
        with pytest.raises(ValueError, match=message):
            data.load_rows(path, None)
    with pytest.raises(FileNotFoundError):
        data.load_rows(tmp_path / "nowhere.npy", None)
