"""Whoever answers log p(x) does so without TensorFloat-32, and leaves the process's setting as it was."""

import importlib
import inspect
import pkgutil
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from inprocess import call

from iwae_zoo import data, estimation, likelihood, networks, presets, resampling, saved_model, sklearn, training, walks
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.model import ImportanceWeightedAutoencoder
from iwae_zoo_serving.programs import serve

allowed = tf.config.experimental.tensor_float_32_execution_enabled


@pytest.fixture(autouse=True)
def switched_on():
    """As TensorFlow has it, before each test and after."""
    assert allowed()
    yield
    assert allowed()


class Touched(Exception):
    """What a `Probe` raises."""


class Probe:
    """A model that says, at the first look at it, how products would be computed."""

    def __getattr__(self, name):
        raise Touched(allowed())


class Signatures(dict):
    """The same of an exported model."""

    def __contains__(self, name):
        raise Touched(allowed())


# What functions of a model take besides, where they do not have it by default.
_ARGUMENTS = {
    "x": np.zeros([1, 3], np.float32),
    "rows": np.zeros([1], np.int32),
    "seed": 0,
    "budget": walks.Budget.of(),
    "m": 1,
    "k": 1,
}
# They compute shapes, or answer yes or no.
_NO_NUMBERS = {"annealing.is_possible", "imputation.check_takes_missing"}
# Of graphs, called from what is listed, inside its scope.
_GRAPHS = {"rows.by_rows", "importance.estimate_log_prob"}


def questions():
    """Every public function of `estimation` that is given a model, by its name."""
    found = {}
    for info in pkgutil.iter_modules(estimation.__path__):
        module = importlib.import_module(f"iwae_zoo.estimation.{info.name}")
        for name in getattr(module, "__all__", ()):
            function = getattr(module, name)
            if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), None) == "model":
                found[f"{function.__module__.rpartition('.')[2]}.{name}"] = function
    return {name: function for name, function in found.items() if name not in _NO_NUMBERS | _GRAPHS}


@pytest.mark.parametrize("name", questions())
def test_every_question_is_answered_without(name):
    function = questions()[name]
    parameters = list(inspect.signature(function).parameters.values())[1:]
    given = {p.name: _ARGUMENTS[p.name] for p in parameters if p.name in _ARGUMENTS and p.kind != p.VAR_KEYWORD}
    with pytest.raises(Touched) as seen:
        function(Probe(), **given)
    assert seen.value.args == (False,)


def test_the_questions_are_found():
    assert {
        "annealing.estimate_log_prob",
        "annealing.estimate_rows",
        "annealing.sample_posterior",
        "annealing.sandwich",
        "bracket.thermodynamic_bracket",
        "diagnostics.summarize",
        "evaluation.check",
        "evaluation.evaluate",
        "imputation.impute",
        "latent.latent_use",
        "likelihood.estimate_dataset",
        "likelihood.estimate_log_prob",
        "likelihood.evaluate_log_prob",
        "resampling.sample_posterior",
        "sampling.sample",
        "snr.gradient_snr",
    } == set(questions())


@keras.saving.register_keras_serializable(package="precision_test")
class Watched(networks.MLPDecoder):
    """A decoder that notes, each time that it runs, how its products are computed."""

    def likelihood(self, z):
        def note(value):
            self.seen.append(allowed())
            return value

        noted = tf.grad_pass_through(lambda v: tf.numpy_function(note, [v], v.dtype))(z)
        return super().likelihood(tf.ensure_shape(noted, z.shape))


@pytest.fixture(scope="module")
def watched():
    """A built and compiled model of 3 bits with such a decoder."""
    decoder = Watched((3,), (2,))
    decoder.seen = []
    model = ImportanceWeightedAutoencoder(
        networks.MLPEncoder(2, (2,)), decoder, networks.StandardNormalPrior(2), objective="iwae"
    )
    model.compile("sgd")
    model.build((None, 3))
    return model


def runs(model, act):
    """What the decoder noted while `act` ran: a set."""
    model.decoder.seen.clear()
    act()
    return set(model.decoder.seen)


X = np.array([[0, 1, 1], [1, 0, 0]], np.float32)


@pytest.mark.slow
def test_while_the_graph_runs(watched):
    ask = {
        "log p(x)": lambda: likelihood.estimate_log_prob(watched, X, 20),
        "resampling": lambda: resampling.sample_posterior(watched, X, num_particles=5),
        "validation": lambda: watched.evaluate(X, verbose=0),
    }
    for name, act in ask.items():
        assert runs(watched, act) == {False}, name
        assert runs(watched, act) == {False}, name  # Traced before, and run again.
        assert allowed()
    # Training by itself is as the process has it, and its validation is not.
    watched.fit(X, validation_data=(X,), epochs=1, verbose=0, shuffle=False)
    seen = watched.decoder.seen
    assert seen[-1] is False and True in seen
    # Unless a scope says otherwise.
    with tensor_float_32(False):
        assert runs(watched, lambda: watched.fit(X, verbose=0)) == {False}


def test_an_error_leaves_it_as_it_was(watched):
    with pytest.raises(ValueError, match="must have shape"):
        likelihood.estimate_log_prob(watched, np.zeros([1, 4], np.float32))
    assert allowed()


@pytest.mark.parametrize("on", [False, True])
def test_a_run_trains_as_it_is_told(on, monkeypatch, tmp_path, tiny):
    config = training.Config(
        dataset=tiny, preset="small", m=1, k=1, epochs=1, eval_samples=5, eval_method="importance", tensor_float_32=on
    )
    run = training.Run(config, tmp_path / "run")
    seen = {}
    monkeypatch.setattr(ImportanceWeightedAutoencoder, "fit", lambda self, *_, **__: seen.update(fit=allowed()))
    monkeypatch.setattr(training.run.evaluation, "evaluate", lambda *_, **__: seen.update(evaluate=allowed()) or 1 / 0)
    model = run.train(verbose=0)
    with pytest.raises(ZeroDivisionError):
        run.evaluate(model, verbose=0)
    assert seen == {"fit": on, "evaluate": False}


def test_exported_models_and_estimators(monkeypatch, watched):
    seen = []
    exported = saved_model.Exported.__new__(saved_model.Exported)
    exported.signatures = Signatures()
    with pytest.raises(Touched) as touched:
        exported.estimate_log_prob(X)
    assert touched.value.args == (False,)
    monkeypatch.setattr(ImportanceWeightedAutoencoder, "fit", lambda *_, **__: seen.append(allowed()))
    estimator = sklearn.LikelihoodEstimator(hidden_sizes=(2,), epochs=1)
    estimator.fit(np.random.default_rng(0).normal(size=(4, 2)))
    assert seen == [False]


def test_the_server_switches_it_off_for_good(tmp_path):
    try:
        assert call(serve, "--model_base_path=nowhere", cwd=tmp_path).returncode != 0
        assert not allowed()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)


def test_scopes_that_meet():
    with tensor_float_32(True):
        assert allowed()
        with tensor_float_32(False), tensor_float_32(True):  # Every one has to allow it.
            assert not allowed()
        assert allowed()
    # Another thread's scope ends before this one's, which began later.
    begun, end = threading.Event(), threading.Event()

    def other():
        with tensor_float_32(False):
            begun.set()
            end.wait()

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with tensor_float_32(False):
        end.set()
        thread.join()
        assert not allowed()
    assert allowed()


def test_whoever_has_switched_it_off_finds_it_off():
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with tensor_float_32(False):
            pass
        assert not allowed()
        with tensor_float_32(True):
            assert allowed()
        assert not allowed()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)


def test_importing_the_library_changes_nothing():
    assert data and presets  # Imported above.
    assert allowed()
