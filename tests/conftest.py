"""Shared by all tests: one fixed seed, and `--vary-seed` to see whether a statistical test only passes by luck."""

import gc
import os
import shutil
import signal
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# There are two test processes, with nothing but small operations: threads that share one cost more than they bring.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What XLA has compiled, for the other test process and the programs that tests start; the first who looks makes it.
if "TF_XLA_FLAGS" not in os.environ:
    COMPILED = tempfile.mkdtemp(prefix="iwae_zoo_xla_")
    os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={COMPILED}"
else:
    COMPILED = None

import numpy as np
import pytest
import quick

import iwae_zoo_console

# A run in the background ignores Ctrl-C, and so would the programs that it starts and interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # Only hands out tests to other processes.
    with iwae_zoo_console.quiet():
        import keras
        import tensorflow as tf

        import iwae_zoo  # noqa: F401

    # `pytest --full-trace` keeps the lines of Python that made an operation.
    quick.settle(config.option.optimized, keeps_lines=config.option.fulltrace)
    # Each call of TensorFlow's and Keras' passes a frame that would shorten the trace of an error.
    tf.debugging.disable_traceback_filtering()
    keras.config.disable_traceback_filtering()
    # For tf.distribute; they share the processor, and nothing else uses more than the first.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
    )


def pytest_unconfigure():
    # Looked for once: pytest itself looks twice for what is left over, to tell what goes wrong when it goes.
    gc.collect()
    gc.freeze()
    if COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--vary-seed", action="store_true", help="Draw the tests' seed from the clock.")
    parser.addoption("--optimized", action="store_true", help="Optimise and compile graphs in all tests, as for users.")


def pytest_report_header(config):
    return f"seed: {_seed(config)}"


# Files that take long, the longest first, so that both test processes end at about the same time.
LONGEST = ("contract", "strategies", "annealing", "run", "certificates", "tiles", "sklearn", "programs", "saved_model")
LONGEST += ("heads", "docs", "workers", "autoencoder", "zoo", "console", "laplace", "end_to_end", "diagnostics")
LONGEST += ("users", "imputation", "device_checks", "likelihood", "gradients", "holes", "trained", "checkpoints")
LONGEST += ("posteriors", "impute", "cells", "stacked_estimation", "callbacks")


def pytest_collection_modifyitems(items):
    order = {f"{name}_test.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))  # Stable: within a file nothing moves.


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """The test processes of pytest-xdist take the seed that the header shows."""
    node.workerinput["seed"] = _seed(node.config)


@pytest.fixture
def seed(request):
    """Seed of everything random in a test."""
    return _seed(request.config)


@pytest.fixture
def short_annealing(monkeypatch):
    """Annealing of few and short steps, where how good its answers are is not the question."""
    from iwae_zoo import paths

    short = paths.INITIAL["laplace"]._replace(temperatures=5, chains=8, leapfrog_steps=1)
    monkeypatch.setitem(paths.INITIAL, "laplace", short)


@pytest.fixture
def no_annealing(monkeypatch):
    """Models that say that they cannot be annealed, where nobody looks at what would be."""
    from iwae_zoo import annealing

    monkeypatch.setattr(annealing, "is_possible", lambda _: False)


@pytest.fixture
def no_evaluation(monkeypatch):
    """Runs that end untested, in studies that do not read how good they are."""
    from iwae_zoo import training

    def evaluate(run, *_, **__):
        asked = {"num_samples": run.config.eval_samples, "method": run.config.eval_method}
        training.write_json(run.workdir / "evaluation.json", asked)
        return asked

    monkeypatch.setattr(training.Run, "evaluate", evaluate)


@pytest.fixture
def optimized(request):
    """As for users: for tests of bits, of speed or memory, and of what XLA makes."""
    quick.optimize(True)
    yield
    quick.optimize(request.config.option.optimized)


@pytest.fixture
def linear_gaussian():
    """A closed-form model with 2 latent and 3 observed dimensions."""
    from iwae_zoo.testing import LinearGaussian

    return LinearGaussian.random(latent_size=2, data_size=3, seed=1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A data file that trains in a second."""
    path = tmp_path_factory.mktemp("data") / "tiny.npy"
    rng = np.random.default_rng(0)
    np.save(path, np.clip(rng.random((100, 1, 1)) + 0.3 * rng.normal(size=(100, 3, 3)), 0, 1))
    return str(path)


def _seed(config):
    if hasattr(config, "workerinput"):
        return config.workerinput["seed"]
    if not hasattr(config, "drawn_seed"):
        config.drawn_seed = time.time_ns() % 2**31 if config.getoption("--vary-seed") else 20180213
    return config.drawn_seed
