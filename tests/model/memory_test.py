"""What particles take, what fits, and what is said where it does not; no card is needed."""

from types import SimpleNamespace

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from faults import exhausted

from iwae_zoo import annealing, likelihood, presets
from iwae_zoo.distributions import fusion
from iwae_zoo.estimation import importance, streaming
from iwae_zoo.model import memory

# Fused operations need less.
pytestmark = pytest.mark.usefixtures("optimized")
GIB = 2**30
CHAINS = {"num_chains": 100, "tile_rows": 1}


@pytest.fixture(scope="module")
def model():
    return presets.build("small", data_shape=(3, 3, 1), objective="iwae")


def test_bytes_of_a_particle_grow_with_the_networks(model):
    """At least its logits and its z at once; the way back keeps the hidden layers besides; XLA saves passes of it."""
    wide = presets.build("small", data_shape=(100, 10, 1), objective="iwae")
    assert memory.bytes_per_particle(model) < memory.bytes_per_particle(wide)
    for built, size in ((model, 9), (wide, 1000)):
        forward, backward = memory.bytes_per_particle(built), memory.bytes_per_particle(built, backward=True)
        assert 4 * (size + built.latent_size) <= forward < backward <= 40 * (size + 1000)
        with fusion.portable():
            assert memory.bytes_per_particle(built) == forward
            portable = memory.bytes_per_particle(built, backward=True)
        assert portable == backward if size == 9 else portable > backward  # There, hidden layers are what is largest.


def test_what_is_needed_at_once():
    """Against a count by hand: a tensor is there from its operation to the last that reads it."""

    def function(x):  # [P, 2]
        a = tf.exp(x)  # x and a: 16 bytes of a particle
        b = tf.reshape(a, [2, -1])  # The same memory.
        c = tf.tile(b, [3, 1])  # a and c: 8 + 24, and no x any more
        return tf.reduce_sum(c, axis=0)  # c and [P] of 4

    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([memory._PARTICLES, 2])).graph
    assert memory._peak(graph) == 32 * memory._PARTICLES


def test_the_chunk_that_fits(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 4 * GIB)
    assert memory.fitting_chunk(16, 2**20, most=5000) == 128  # Of half of it.
    assert memory.fitting_chunk(16, 2**20, most=100) == 100
    assert memory.fitting_chunk(16, GIB, most=100) == 1


def test_memory_of_a_machine_and_of_a_container(monkeypatch, tmp_path):
    machine = SimpleNamespace(total=8 * GIB, available=6 * GIB, free=1)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    for limit, total, free in ((None, 8, 6), ("max", 8, 6), (3 * GIB, 3, 2), (100 * GIB, 8, 6)):
        if limit:
            (tmp_path / "memory.max").write_text(f"{limit}\n")
            (tmp_path / "memory.current").write_text(f"{GIB}\n")
        assert (memory.of_device(), memory.available()) == (total * GIB, free * GIB)
    (tmp_path / "memory.current").write_text(f"{100 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {3 * GIB}\nactive_file 7\n")
    assert memory.available() == 3 * GIB  # Copies of files are given away when there is need.


@pytest.mark.parametrize(("parts", "total"), [([], 80 * GIB), ([SimpleNamespace(memory_limit=9 * 1024)] * 2, 9 * GIB)])
def test_memory_of_a_card(parts, total, monkeypatch):
    """A logical device has its share."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a card"])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a card"])
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda device: parts)
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda device: {"current": GIB, "peak": 2 * GIB})
    monkeypatch.setattr(memory, "card_megabytes", lambda index: 80.0 * 1024)
    assert (memory.of_device(), memory.available()) == (total, total - GIB)


def test_an_error_that_says_what_would_fit(model, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2 * 16 * 640 * memory.bytes_per_particle(model))
    monkeypatch.setattr(memory, "of_device", lambda: GIB)
    for rows, chunk, options, message in (
        (16, 64, {}, "16 rows with 64 particles each .* of 1024 MiB are free: particle_chunk=32 would fit"),
        (16, 5000, {}, "16 rows with 5000 particles each .* particle_chunk=640 would fit"),
        (16, 5000, {"copies": 4}, "16 rows with 5000 particles each .* particle_chunk=160 would fit"),
        (16 * 640, 64, {}, "particle_chunk=1 would fit"),
        (3 * 16 * 640, 64, {}, "30720 rows with 64 particles each .* are free: take fewer rows at once.$"),
        (1, 1, {"fewer_rows": "a smaller batch"}, "1 row with 1 particle each .*: take a smaller batch"),
        (16, 64, {"least": 40}, "16 rows with 64 particles each .* particle_chunk=40 would fit"),
        (16, 64, {"least": 64}, "16 rows with 64 particles each .* are free: take fewer rows at once.$"),
        (16, 5000, {"least": 641}, "16 rows with 5000 particles each .* are free: take fewer rows at once.$"),
    ):
        with pytest.raises(MemoryError, match=message) as raised, memory.enough(model, rows, chunk, **options):
            exhausted()
        assert raised.value.__suppress_context__
    with pytest.raises(OSError, match="runs/tensorboard/events; No space left on device"), memory.enough(model, 16, 64):
        raise tf.errors.ResourceExhaustedError(
            None, None, "runs/tensorboard/events; No space left on device\nin a file"
        )
    with pytest.raises(tf.errors.InvalidArgumentError), memory.enough(model, 16, 64):  # Only that error is meant.
        raise tf.errors.InvalidArgumentError(None, None, "OOM")


def test_a_card_of_whose_memory_the_driver_says_nothing(model, monkeypatch):
    def unknown():
        raise RuntimeError("The driver does not say.")

    monkeypatch.setattr(memory, "of_device", unknown)
    expected = "MiB at once: take fewer rows at once, or a smaller particle_chunk. The driver does not say."
    with pytest.raises(MemoryError, match=expected), memory.enough(model, 16, 64):
        exhausted()
    expected = "MiB at once: take fewer rows at once. The driver does not say."
    with pytest.raises(MemoryError, match=expected), memory.enough(model, 16, 64, least=64):
        exhausted()


@pytest.mark.parametrize(
    ("x", "options", "rows"),
    [
        (np.zeros((40, 3, 3, 1)), {}, 32),
        (np.zeros((20, 3, 3, 1)), {}, 20),
        (np.zeros((40, 3, 3, 1)), {"batch_size": 10}, 10),
        (tf.data.Dataset.from_tensors(np.zeros((7, 3, 3, 1))), {"shuffle": False}, 7),
        (tf.data.Dataset.from_tensor_slices(np.zeros((7, 3, 3, 1))).batch(4), {"shuffle": False}, None),
    ],
)
def test_asked_to_train(x, options, rows, model, monkeypatch):
    monkeypatch.setattr(keras.Model, "make_train_function", exhausted)
    model.compile(particle_chunk=8)
    expected = f"{rows} rows with 8 particles each .*: particle_chunk=4 would fit"
    error = (tf.errors.ResourceExhaustedError, "OOM") if rows is None else (MemoryError, expected)
    with pytest.raises(error[0], match=error[1]):
        model.fit(x, **options)


def test_asked_for_log_prob(model, monkeypatch):
    monkeypatch.setattr(importance, "_rows_function", lambda *_: exhausted)
    with pytest.raises(
        MemoryError, match=r"2 rows with 100 particles .* chunk_size=50 \(--particle_chunk=50\) would fit"
    ):
        likelihood.estimate_log_prob(model, np.zeros((1, 3, 3, 1)), 100, tile_rows=1)


@pytest.mark.parametrize(
    ("function", "ask"),
    [
        ("_estimate_function", lambda model: annealing.estimate_log_prob(model, np.zeros((3, 3, 3, 1)), **CHAINS)),
        ("_sample_function", lambda model: annealing.sample_posterior(model, np.zeros((3, 3, 3, 1)), **CHAINS)),
        ("_sandwich_function", lambda model: annealing.sandwich(model, 3, **CHAINS)),
    ],
)
def test_asked_to_anneal(function, ask, model, monkeypatch):
    monkeypatch.setattr(annealing, function, lambda *_: exhausted)
    with pytest.raises(MemoryError, match="2 rows with 100 chains each .*: num_chains=50 would fit"):
        ask(model)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"num_chains": 200}, "num_chains=100 would fit"),
        ({"num_chains": 100}, "num_chains=60 would fit"),
        ({"num_chains": 60}, "take a device with more memory"),
        ({"num_chains": 60, "tile_rows": 48}, "take a smaller tile_rows, or a device with more memory"),
        ({"num_chains": 20}, "take a device with more memory"),
        ({"num_chains": 20, "initial": "encoder"}, "num_chains=10 would fit"),
    ],
)
def test_the_search_for_modes_goes_along_many_directions(options, remedy, monkeypatch):
    """Of fewer chains than these it takes no less memory."""
    wide = presets.build("small", data_shape=(3, 3, 1), objective="iwae", latent_size=60)
    monkeypatch.setattr(annealing, "_estimate_function", lambda *_: exhausted)
    options = {"tile_rows": 1, **options}
    rows = f"{max(2, options['tile_rows'])} rows with {options['num_chains']} chains each"
    with pytest.raises(MemoryError, match=f"^The device is out of memory: {rows} .*: {remedy}.$") as raised:
        annealing.estimate_log_prob(wide, np.zeros((3, 3, 3, 1)), **options)
    at_once = max(options["num_chains"], 1 if "initial" in options else 60) * max(2, options["tile_rows"])
    taken = at_once * memory.bytes_per_particle(wide, backward=True) / 2**20
    assert f"take about {taken:.0f} MiB at once" in str(raised.value)


def test_who_cannot_choose_the_chains_is_told_what_there_is_to_choose(model, monkeypatch):
    monkeypatch.setattr(annealing, "_estimate_function", lambda *_: exhausted)
    with pytest.raises(MemoryError, match="2 rows with 32 chains each .* are free: take method='importance'.$"):
        likelihood.estimate_log_prob(model, np.zeros((1, 3, 3, 1)), 100, method="annealed", tile_rows=1)


def test_the_last_chunk_of_the_most_particles_that_can_be_counted():
    """2^31 - 1 of them: the end of a chunk that is not whole may have no int32."""
    most = tf.constant([2**31 - 1, 2400, 2400])
    after = streaming.after(tf.constant([2**31 - 1100, 0, 2000]), 2500, most)
    np.testing.assert_array_equal(after, most)
    np.testing.assert_array_equal(streaming.after(tf.constant(2500), 2500, tf.constant(2**31 - 1)), 5000)
