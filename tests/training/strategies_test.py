"""Several devices train to the weights of one, and answer what one answers."""

import json
import pathlib
import re
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from oracles import flat
from replicated import mirrored

from iwae_zoo import (
    ImportanceWeightedAutoencoder,
    diagnostics,
    likelihood,
    networks,
    objectives,
    presets,
    resampling,
    strategies,
)
from iwae_zoo.model import replicas
from iwae_zoo.testing import LinearGaussian


def binary(count, seed=0):
    return (np.random.default_rng(seed).random((count, 3, 3, 1)) < 0.4).astype("float32")


def trained(strategy, name, x, batch_size=10, validated=False, sleep=None, limits=None, **settings):
    objective = objectives.get(name, m=2, k=3, sleep=sleep)
    with strategy.scope():
        model = presets.build("small", data_shape=(3, 3, 1), objective=objective)
        # Not Adam, whose steps do not get smaller where a gradient is little but rounding.
        model.compile(keras.optimizers.SGD(0.05, **(limits or {})), keras.optimizers.SGD(0.05), **settings)
    data = tf.data.Dataset.from_tensor_slices(x).batch(batch_size)
    validation = data if validated else None
    history = model.fit(data, epochs=2, validation_data=validation, shuffle=False, verbose=0).history
    return model, history


# The last batch of 21 has one example: some replicas get none. 10 does not divide by 3; a batch of 50 is never full.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch_size", "count"), [("piwae", 10, 3), ("dreg", 50, 2), ("rws", 10, 2)])
def test_several_devices_train_to_the_weights_of_one(name, batch_size, count):
    x = binary(21)
    one, history_of_one = trained(tf.distribute.get_strategy(), name, x, batch_size, validated=True)
    several, history = trained(mirrored(count), name, x, batch_size, validated=True)
    assert several.distribute_strategy.num_replicas_in_sync == count
    np.testing.assert_allclose(flat(several.get_weights()), flat(one.get_weights()), rtol=0, atol=2e-6)
    assert set(history) == set(history_of_one)
    for metric, values in history.items():
        np.testing.assert_allclose(values, history_of_one[metric], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"particle_chunk": 2, "limits": {"global_clipnorm": 0.01}},  # Of the batch's gradient, not of each replica's.
        {"backward_particles": 2, "limits": {"clipvalue": 1e-3}},
        {"jit_compile": True, "sleep": 0.5},
    ],
)
def test_settings_on_several_devices(settings):
    batch_size, ways = 10, [mirrored(2)]
    if settings.get("jit_compile"):  # A strategy of one device exchanges with itself, which it cannot within XLA.
        batch_size, ways = 2, [*ways, tf.distribute.MirroredStrategy(["CPU:0"])]
    x = binary(batch_size + 1)
    one, _ = trained(tf.distribute.get_strategy(), "miwae", x, batch_size, **settings)
    expected = flat(one.get_weights())
    for strategy in ways:
        model, _ = trained(strategy, "miwae", x, batch_size, **settings)
        np.testing.assert_allclose(flat(model.get_weights()), expected, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_a_strategy_of_one_device_with_terminate_on_nan():
    """It exchanges with itself, which it cannot on a condition."""
    weights = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        with strategy.scope():
            model = presets.build("small", data_shape=(3, 3, 1))
            model.compile("sgd")
        model.fit(binary(11), shuffle=False, callbacks=keras.callbacks.TerminateOnNaN(), verbose=0)
        weights.append(flat(model.get_weights()))
    np.testing.assert_allclose(*weights, rtol=0, atol=2e-6)


def test_what_is_for_one_device():
    with mirrored(2).scope():
        model = presets.build("small", data_shape=(3, 3, 1))
        with pytest.raises(ValueError, match="steps_per_execution must be 1 on several devices: received 4"):
            model.compile(steps_per_execution=4)
        with pytest.raises(ValueError, match="gradient_accumulation_steps is for one device"):
            model.compile(encoder_optimizer=keras.optimizers.SGD(gradient_accumulation_steps=2))
        with pytest.raises(ValueError, match="ema_overwrite_frequency is for one device"):
            model.compile(keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2))


@pytest.mark.slow
def test_what_is_compiled_outside_of_the_scope(tmp_path):
    """Optimizers that are made there would train each replica by itself, without a word."""

    def built():
        return presets.build("small", data_shape=(3, 3, 1))

    x, weights = binary(21), []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        with strategy.scope():
            model = built()
        model.compile(keras.optimizers.SGD(0.05))
        model.fit(x, batch_size=10, epochs=2, shuffle=False, verbose=0)
        weights.append(flat(model.get_weights()))
    np.testing.assert_allclose(*weights, rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match="An optimizer was made outside of the strategy.scope"):
        model.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05))
    alone = built()
    with mirrored(2).scope(), pytest.raises(ValueError, match="The model was made outside of this strategy.scope"):
        alone.compile("sgd")
    # A file of one device.
    alone.compile("sgd", steps_per_execution=3)
    alone.save(tmp_path / "model.keras")
    with mirrored(2).scope():
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.steps_per_execution == 1
    loaded.fit(x, batch_size=10, shuffle=False, verbose=0)


def test_workers_shuffle_an_array_alike():
    x = np.arange(10.0)
    orders = []
    for _ in range(2):
        batches, options = replicas.in_one_order(x, {"y": -x, "batch_size": 4, "epochs": 2}, seed=3, batch_size=4)
        assert options == {"y": None, "batch_size": None, "epochs": 2, "shuffle": False}
        orders.append([np.concatenate(list(batches.as_numpy_iterator())) for _ in range(2)])
    np.testing.assert_array_equal(*orders)
    first, second = orders[0]
    assert sorted(first) == sorted(second) == list(x) and not np.array_equal(first, second)
    data = tf.data.Dataset.from_tensor_slices(x)
    assert replicas.in_one_order(data, {}, 3, 4) == (data, {})
    assert replicas.in_one_order(x, {"shuffle": False}, 3, 4)[0] is x
    with pytest.raises(ValueError, match="validation_split is for one machine"):
        replicas.in_one_order(x, {"validation_split": 0.2}, 3, 4)


@pytest.mark.slow
def test_a_posterior_of_tfps_on_a_replica_without_rows():
    exact = LinearGaussian.random(latent_size=2, data_size=3)  # Whose encoder is a MultivariateNormalTriL.
    x = exact.sample(9)
    with mirrored(2).scope():
        model = exact.model("iwae")
        model.compile(keras.optimizers.SGD(0.05))
    model.fit(x, batch_size=8, shuffle=False, verbose=0)
    assert np.isfinite(model.evaluate(x, batch_size=8, verbose=0)).all()
    assert all(np.isfinite(values).all() for values in model.get_weights())


@pytest.mark.slow
def test_a_model_without_variables():
    with mirrored(2).scope():
        model = ImportanceWeightedAutoencoder(
            networks.MLPEncoder(4), networks.MLPDecoder((3, 3, 1)), networks.StandardNormalPrior(4)
        )
        model.compile()
    with pytest.raises(RuntimeError, match="Call model.build"):  # Only `fit` looks at the data before it begins.
        model.evaluate(tf.data.Dataset.from_tensor_slices(binary(4)).batch(4), verbose=0)
    model.fit(tf.data.Dataset.from_tensor_slices(binary(4)).batch(4), shuffle=False, verbose=0)


@pytest.mark.slow
def test_log_weights_that_are_not_finite_stop_all_replicas():
    x = binary(10)
    x[7] = 0.5  # Of the second replica.
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside the support"):
        trained(mirrored(2), "iwae", x)


@pytest.mark.slow
def test_answers_are_those_of_one_device(short_annealing):
    one = presets.build("small", data_shape=(3, 3, 1))
    with mirrored(2).scope():
        several = presets.build("small", data_shape=(3, 3, 1))
    x = binary(7)
    for options in ({}, {"tolerance": 0.05}):
        expected = likelihood.estimate_dataset(one, x, 500, chunk_size=100, verbose=0, **options)
        received = likelihood.estimate_dataset(several, x, 500, chunk_size=100, verbose=0, **options)
        for name, values in expected._asdict().items():
            np.testing.assert_array_equal(getattr(received, name), values)
            assert getattr(received, name).dtype == values.dtype
    assert likelihood.estimate_log_prob(several, x[:1], 500, chunk_size=100).log_prob.shape == (1,)
    for ours, theirs in zip(*(resampling.sample_posterior(model, x, 2, 20) for model in (several, one)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    snr = [diagnostics.gradient_snr(model, x, num_repeats=20).encoder.mean for model in (one, several)]
    assert snr[1] == pytest.approx(snr[0], rel=1e-4)


# Choosing.


def cluster(workers, index=0):
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(
    ("name", "devices", "tf_config", "message"),
    [
        ("mirored", None, None, "Did you mean 'mirrored'"),
        ("multi_worker", None, None, "needs the environment variable TF_CONFIG, such as"),
        ("auto", "gpu:9", None, "GPUs on this machine: received devices='gpu:9'"),
        ("auto", "gpu:1x2", None, "GPUs on this machine: received devices='gpu:1x2'"),
        ("auto", "cpu:0", None, "a kind and a number, such as 'gpu:2', 'gpu:1x2' or 'cpu:4': received 'cpu:0'"),
        ("auto", "cpu:1x0", None, "received 'cpu:1x0'"),
        ("auto", "gpu:x2", None, "received 'gpu:x2'"),
        ("auto", "tpu", None, "'gpu:1x2' or 'cpu:4': received 'tpu'"),
        ("auto", None, "{", "TF_CONFIG cannot be used"),
        ("auto", None, '{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG cannot be used"),
        ("auto", None, cluster(["a:1"], 1), "must have an index from 0 to 0"),
        ("auto", None, cluster(["a:1"], -1), "must have an index from 0 to 0"),
        ("auto", None, cluster("127.0.0.1:2222"), "must have a list of host:port for each job"),
        ("auto", None, cluster(["a:1", None]), "must have a list of host:port for each job"),
        ("auto", None, cluster(["a", "b"]), "must have a list of host:port for each job"),
        ("auto", None, cluster(["a:1", "a:1"]), "must have another address for each worker"),
        (
            "auto",
            None,
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
            "may name the jobs chief and worker only",
        ),
    ],
)
def test_errors(name, devices, tf_config, message, monkeypatch):
    if tf_config is not None:
        monkeypatch.setenv("TF_CONFIG", tf_config)
    with pytest.raises(ValueError, match=message):
        strategies.get(name, devices)


def test_the_clusters_of_build_md(tmp_path, monkeypatch):
    """The lines of BUILD.md that make a TF_CONFIG make one that can be used."""
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "machines.md").read_text()
    slurm = re.search(r"```bash\n(.*?)```", text, flags=re.DOTALL).group(1)
    job = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL).group(1))
    pod = job["spec"]["template"]["spec"]
    for name, script in (("scontrol", "echo a; echo b"), ("srun", 'shift; exec "$@"'), ("python", 'echo "$TF_CONFIG"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_PROCID": "1", "JOB_COMPLETION_INDEX": "1"}
    for script in (slurm, *pod["containers"][0]["args"]):
        output = subprocess.run(
            ["bash", "-c", script], env=environment, check=True, capture_output=True, text=True
        ).stdout
        monkeypatch.setenv("TF_CONFIG", output)
        assert strategies.cluster_size() == 2
        assert json.loads(output)["task"] == {"type": "worker", "index": 1}
    assert json.loads(output)["cluster"]["worker"][1].startswith(f"{job['metadata']['name']}-1.{pod['subdomain']}:")


def test_choices(monkeypatch):
    assert strategies.get("none").num_replicas_in_sync == 1
    assert strategies.get("auto").num_replicas_in_sync == 1
    assert isinstance(strategies.get("mirrored"), tf.distribute.MirroredStrategy)
    assert strategies.is_chief(strategies.get("none")) and strategies.is_chief(mirrored(2))
    # One worker is no cluster.
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}')
    assert strategies.get("auto").num_replicas_in_sync == 1
    with pytest.raises(RuntimeError, match="only before anything else of TensorFlow runs"):
        strategies.get("auto", "cpu:2")


@pytest.mark.parametrize(
    ("cluster", "task", "is_chief"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), True),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), False),
        ({"chief": ["c:1"], "worker": ["a:1"]}, ("chief", 0), True),
        ({"chief": ["c:1"], "worker": ["a:1"]}, ("worker", 0), False),
    ],
)
def test_chief(cluster, task, is_chief):
    class Strategy:
        cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster), task_type=task[0], task_id=task[1]
        )

    assert strategies.is_chief(Strategy) == is_chief
