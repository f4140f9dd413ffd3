"""Data with a reference: the mixture's closed form against its draws, and the files against what reads them."""

import itertools
import json
import zlib

import numpy as np
from inprocess import call

from iwae_zoo import data
from studies import kinds_main


def test_the_mixture_sums_to_one_and_draws_what_it_says(seed):
    truth = kinds_main.MixtureOfCounts(classes=3, columns=2, seed=1)
    truth.means /= 4.0
    grid = np.array(list(itertools.product(range(60), repeat=2)))
    probabilities = np.exp(truth.log_prob(grid))
    assert abs(probabilities.sum() - 1) < 1e-6
    drawn = truth.sample(20_000, seed)
    for column in range(2):
        error = drawn[:, column].std() / np.sqrt(len(drawn))
        assert abs(drawn[:, column].mean() - probabilities @ grid[:, column]) < 4 * error
    zero = (drawn == 0).all(axis=1).mean()
    assert abs(zero - probabilities[0]) < 4 * np.sqrt(probabilities[0] / len(drawn))


def test_the_files_train(tmp_path):
    ended = call(kinds_main, "--workdir=kinds", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    kinds = {
        "digits_bytes": ("byte", (8, 8, 1)),
        "photographs": ("byte", (32, 32, 3)),
        "breast_cancer": ("real", (30,)),
        "counts": ("count", (50,)),
    }
    for name, (kind, shape) in kinds.items():
        loaded = data.load(str(tmp_path / "kinds" / f"{name}.npz"))
        assert (loaded.kind, loaded.data_shape) == (kind, shape)
    references = json.loads((tmp_path / "kinds" / "references.json").read_text())
    images = np.load(tmp_path / "kinds" / "digits_bytes.npz")["test"]
    bits = references["digits_bytes, bits per dimension"]["zlib, all images"]
    assert bits == 8 * len(zlib.compress(images.tobytes(), 9)) / images.size
    assert 2 < bits < references["digits_bytes, bits per dimension"]["PNG, each image"]


def test_patches_share_no_pixel_between_the_splits():
    places = np.arange(2 * 70 * 240 * 3).reshape(2, 70, 240, 3)
    parts = kinds_main.patches(places)
    # 168, 36 and 36 columns; of the first, every eighth place has a patch.
    assert {name: part.shape for name, part in parts.items()} == {
        "train": (2 * 5 * 18, 32, 32, 3),
        "validation": (2 * 2 * 1, 32, 32, 3),
        "test": (2 * 2 * 1, 32, 32, 3),
    }
    pixels = [set(part.ravel().tolist()) for part in parts.values()]
    assert sum(map(len, pixels)) == len(set.union(*pixels))
    np.testing.assert_array_equal(parts["train"][19], places[0, 8:40, 8:40])
    np.testing.assert_array_equal(parts["test"][3], places[1, 32:64, 204:236])


def test_a_file_that_is_there_stays_where_another_cannot_be_written(tmp_path, monkeypatch):
    np.savez(tmp_path / "digits_bytes.npz", x=np.arange(3))

    def break_off(path, **_):
        path.write_bytes(b"PK")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", break_off)
    ended = call(kinds_main, f"--workdir={tmp_path}", cwd=tmp_path)
    assert ended.stderr == "the_program: No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["digits_bytes.npz"]
    assert np.load(tmp_path / "digits_bytes.npz")["x"].tolist() == [0, 1, 2]
