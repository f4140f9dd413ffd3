"""Worker processes on loopback: they train to the weights of one process, and survive the loss of one of them."""

import json
import pathlib
import socket
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import warm
import workers_toy

PROGRAM = pathlib.Path(workers_toy.__file__)
pytestmark = pytest.mark.slow


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """Two workers on this machine, each running the same command."""

    def __init__(self, *command, cwd):
        self.command = command  # INDEX in it stands for the worker's.
        self.cwd = cwd
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self.workers = [self.start(0), self.start(1)]

    def start(self, index, *flags):
        task = {"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": index}}
        command = [str(argument).replace("INDEX", str(index)) for argument in (*self.command, *flags)]
        log = self.cwd / f"worker{index}.log"
        return warm.start(*command, cwd=self.cwd, stdout=log, env={"TF_CONFIG": json.dumps(task)})

    def wait(self):
        try:
            for index, worker in enumerate(self.workers):
                worker.join(timeout=240)
                assert worker.exitcode == 0, (self.cwd / f"worker{index}.log").read_text()[-4000:]
        finally:
            for worker in self.workers:
                worker.kill()


@pytest.fixture(scope="module")
def flags(tiny):
    """Of train_main.py."""
    listed = [f"--dataset={tiny}", "--objective=dreg", "--m=2", "--k=2", "--preset=small", "--hidden_sizes=8"]
    listed += ["--batch_size=8", "--checkpoint_every=3"]
    # As many samples as particles, so that bound and log p(x) share what is traced.
    return [*listed, "--epochs=3", "--eval_samples=4", "--eval_method=importance", "--workdir=run"]


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory):
    """A cluster that trains the toy and then as the flags say."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return Cluster(PROGRAM, "workerINDEX.npz", *flags, cwd=folder)


def is_newer(path, other):
    try:
        return path.stat().st_mtime_ns > other.stat().st_mtime_ns
    except FileNotFoundError:  # It comes and goes.
        return False


def test_two_workers_train_to_the_weights_of_one(undisturbed):
    expected = workers_toy.results(workers_toy.train(tf.distribute.get_strategy()))
    undisturbed.wait()
    for name in ("worker0", "worker1"):
        received = np.load(undisturbed.cwd / f"{name}.npz")
        assert received["replicas"] == 2
        np.testing.assert_allclose(received["weights"], expected["weights"], rtol=0, atol=2e-6)
        np.testing.assert_allclose(received["log_prob"], expected["log_prob"], rtol=0, atol=1e-5)


def test_a_killed_worker_is_started_again_and_nothing_is_lost(undisturbed, flags, tmp_path):
    undisturbed.wait()
    cluster = Cluster(PROGRAM, *flags, "--stream_above=0", cwd=tmp_path)  # To the same, too.
    runs = [each.cwd / "run" for each in (cluster, undisturbed)]
    metrics = runs[0] / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 1):
        time.sleep(0.02)
    while time.monotonic() < deadline and not is_newer(runs[0] / "latest.keras", metrics):  # Within an epoch.
        time.sleep(0.005)
    cluster.workers[1].kill()
    cluster.workers[1].join()
    assert 1 <= metrics.read_text().count("\n") < 3
    cluster.workers[1] = cluster.start(1, "--resume")
    cluster.wait()
    log = (tmp_path / "worker0.log").read_text()
    # Within an epoch, unless the worker was just in time to finish it.
    assert "Another worker of the cluster is gone" in log and "Going on from epoch" in log
    # Only the chief has written, and every file is whole.
    assert not list(tmp_path.rglob(".partial-*"))
    for file in ("metrics.jsonl", "evaluation.json"):
        assert len({(run / file).read_text() for run in runs}) == 1
    weights = [keras.saving.load_model(run / "model.keras").get_weights() for run in runs]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
