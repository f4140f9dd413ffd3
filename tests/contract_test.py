"""The contract of a model, whatever it is made of: trained, saved, exported and served; one row for several new things.

A new objective, body, likelihood, posterior or prior needs a row here.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import flat, naive_gradients
from replicated import mirrored
from served import ask, requests
from toy_data import dataset

from iwae_zoo import (
    annealing,
    imputation,
    likelihood,
    objectives,
    presets,
    saved_model,
)
from iwae_zoo.data import kinds
from iwae_zoo.distributions import fusion, likelihoods, posteriors
from iwae_zoo.estimation import importance
from iwae_zoo.networks import bodies
from iwae_zoo.networks import prior as priors

pytestmark = pytest.mark.slow

M, K, SAMPLES = 2, 3, 20
BUDGET = {"num_temperatures": 3, "num_chains": 8, "num_leapfrog_steps": 1}


class Row(NamedTuple):
    """A model, and which of the dearer checks it is for.

    Attributes:
      objective: name.
      likelihood: name, with settings.
      data_shape: shape of one x.
      body: name, with settings.
      posterior: name, or names with + between them, with settings.
      prior: name, with settings; None for that of the posterior.
      latent_size: of one stochastic layer, or of each.
      hidden_sizes: as `presets.Preset` has them.
      thorough: whether also what is dear, and most rows have in common: it goes on after loading, and is traced once
        more for its gradients.
      annealed: whether it is exported with the annealed signatures: a row for each prior, and among these one for
        tables, one for several layers and one for posteriors with heavy tails.
      replicas: None, or how near the weights that two replicas train are to those of one.
    """

    objective: str
    likelihood: str
    data_shape: tuple[int, ...] = (4,)
    body: str = "perceptron"
    posterior: str = "normal"
    prior: str | None = "standard_normal"
    latent_size: Any = 3
    hidden_sizes: Any = (6,)
    thorough: bool = False
    annealed: bool = False
    replicas: float | None = None

    @property
    def kind(self):
        """Of its data."""
        return likelihoods.get(self.likelihood).kinds[0]


TWO_LAYERS: dict[str, Any] = {"latent_size": (3, 2), "hidden_sizes": ((6,), (5,))}
BELIEF_NETWORK: dict[str, Any] = {"latent_size": (3, 2), "hidden_sizes": (), "prior": None}
ROWS = [
    Row("rws_dreg", "continuous_bernoulli", (3, 2, 1), posterior="full_normal"),
    Row("jvi", "beta", (3, 2, 1), prior="mixture_of_normals"),
    Row("stl", "discretized_logistic", (4, 3, 3), "convolution,blocks=0", hidden_sizes=(3,)),
    Row("dreg", "bernoulli", (6, 5, 1), "convolution", hidden_sizes=(3, 4), thorough=True, replicas=5e-6),
    Row("tvo", "discretized_logistic_mixture,components=2", thorough=True),
    Row("ciwae", "normal", posterior="full_normal", prior="mixture_of_normals", thorough=True, annealed=True),
    Row(
        "vr_iwae",
        "student_t",
        body="perceptron,residual=True,normalized=True",
        posterior="student_t",
        hidden_sizes=(6, 6),
    ),
    Row(
        "rws", "categorical", posterior="student_t", prior="coupling_flow", thorough=True, annealed=True, replicas=5e-6
    ),
    # Weights of the decoder that no body has.
    Row("piwae", "negative_binomial,offset=True", posterior="coupling_flow", thorough=True),
    Row(
        "elbo",
        "poisson",
        posterior="coupling_flow,num_couplings=2",
        prior="coupling_flow,num_couplings=2",
        annealed=True,
        replicas=5e-6,
        **TWO_LAYERS,
    ),
    Row("iwae", "log_normal", posterior="relaxed_categorical,classes=2", prior=None, latent_size=4),
    # Weights of the decoder that no body has, on two replicas too.
    Row("miwae", "columns", (5,), thorough=True, annealed=True, replicas=5e-6),
    Row("piwae", "zero_inflated_negative_binomial,offset=True", posterior="relaxed_bernoulli", **BELIEF_NETWORK),
    Row("vimco", "bernoulli", posterior="bernoulli", replicas=5e-6, **BELIEF_NETWORK),
    Row(
        "ovis",
        "laplace,spread=column",
        posterior="normal+categorical",
        prior="categorical,learned=False",
        **TWO_LAYERS,
    ),
]
SPECS = sorted({row.likelihood for row in ROWS})
OUTSIDE = {"binary": 0.5, "intensity": 1.5, "byte": 0.5, "class": 3.0, "count": -1.0, "real": np.inf}
OUTSIDE |= {"positive": 0.0, "table": -1.0}  # Of a table the third column holds counts.


def built(row, seed=0):
    """An untrained model, its flows off the identity that they start as."""
    model = presets.build(
        "plane",
        data=dataset(row.likelihood, row.data_shape),
        objective=objectives.get(row.objective, m=M, k=K),
        likelihood=row.likelihood,
        network=row.body,
        posterior=row.posterior,
        prior=row.prior,
        latent_size=row.latent_size,
        hidden_sizes=row.hidden_sizes,
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    return model


def fit(model, x, **options):
    data = tf.data.Dataset.from_tensor_slices(x).batch(3)
    return model.fit(data, shuffle=False, verbose=0, **options).history


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: f"{row.objective}-{row.likelihood}")
def row(request):
    return request.param


@pytest.fixture(scope="module")
def x(row):
    return dataset(row.likelihood, row.data_shape).test[:6]


@pytest.fixture(scope="module")
def model(row, x):
    """Trained for an epoch, with an optimizer that has a state and one that has none."""
    model = built(row)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9), keras.optimizers.SGD(0.001))
    history = fit(model, x)
    known = {"loss", "decoder_bound", "encoder_bound", "elbo", "importance_ess"}
    assert set(history) == known | set(model.objective.companions)
    assert np.isfinite(list(history.values())).all()
    return model


@pytest.fixture(scope="module")
def exported(row, model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if not row.annealed:
            patch.setattr(annealing, "is_possible", lambda _: False)
        path = saved_model.export(model, tmp_path_factory.mktemp("served") / "model", SAMPLES, 40, **BUDGET)
    return saved_model.Exported(path)


def test_everything_in_a_table_has_a_row():
    assert {row.objective for row in ROWS} == set(objectives.names())
    assert {row.body.split(",")[0] for row in ROWS} == set(bodies.names())
    assert {row.likelihood.split(",")[0] for row in ROWS} == set(likelihoods.names())
    assert {name.split(",")[0] for row in ROWS for name in row.posterior.split("+")} == set(posteriors.names())
    tops = [posteriors.get(row.posterior.split("+")[-1], 4) for row in ROWS]
    assert {(row.prior or q.prior).split(",")[0] for row, q in zip(ROWS, tops, strict=True)} == set(priors.names())
    assert {row.kind for row in ROWS} == set(OUTSIDE) == set(kinds.names())


@pytest.mark.parametrize(
    ("spec", "body"),
    [
        (spec, body)
        for spec in SPECS
        for body in bodies.names()
        if (spec, body) != ("columns", "convolution")  # A table is no image.
    ],
)
def test_every_objective_trains_every_likelihood_and_every_body(spec, body):
    """Gradients of every weight, finite; and the decoder's are those of its bound, whatever the encoder follows."""
    shape = {"columns": (5,)}.get(spec, {"perceptron": (4,), "convolution": (4, 4, 1)}[body])
    sizes = {"latent_size": 2, "hidden_sizes": (3,)}
    model = presets.build("plane", data=dataset(spec, shape), likelihood=spec, network=body, **sizes)
    x, of_bounds = dataset(spec, shape).test[:2], {}
    for name in objectives.names():
        model.objective = objectives.get(name, m=2, k=2)
        with fusion.portable():
            received = model.compute_gradients(x, seed=(3, 4))
        for side, variables in (
            (received.encoder, model.encoder_variables),
            (received.decoder, model.decoder_variables),
        ):
            assert [g.shape for g in side] == [v.shape for v in variables]
            assert np.isfinite(flat(side)).all()
            assert all(np.abs(g).max() > 0 for g in side), name
        expected = of_bounds.setdefault(model.objective.decoder_bound, received.decoder)
        np.testing.assert_allclose(flat(received.decoder), flat(expected), rtol=1e-5, atol=1e-5, err_msg=name)
    assert len(of_bounds) < len(objectives.names())  # Several objectives share one.


def test_gradients_are_those_of_two_naive_tapes(row, model, x):
    """Finite, of every weight, and in graph mode the same."""
    with fusion.portable():  # Compiled is what training runs.
        encoder, decoder, log_weights = naive_gradients(model, row.objective, x, (3, 4))
        received = model.compute_gradients(x, seed=(3, 4))
        graph = tf.function(model.compute_gradients, autograph=False)(x, seed=(3, 4)) if row.thorough else received
    assert received.log_weights.shape == (M, K, len(x))
    # Other posteriors and layers round more often.
    plain = (row.posterior, row.latent_size) == ("normal", 3)
    np.testing.assert_allclose(received.log_weights, log_weights, rtol=1e-5, atol=1e-4)
    for ours, theirs, graphs in zip(received[:2], (encoder, decoder), graph[:2], strict=True):
        assert [g.shape for g in ours] == [g.shape for g in theirs]
        assert np.isfinite(flat(ours)).all()
        assert all(np.abs(g).max() > 0 for g in ours)
        size = np.linalg.norm(flat(theirs))
        assert np.linalg.norm(flat(ours) - flat(theirs)) < (3e-6 if plain else 1e-5) * size
        assert np.linalg.norm(flat(ours) - flat(graphs)) < 1e-5 * size


def test_saved_and_loaded_it_is_the_same(row, model, x, tmp_path):
    """To the bit: weights, densities, and the states of both optimizers."""
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.objective == model.objective
    assert loaded.decoder.head == model.decoder.head
    assert isinstance(loaded.decoder_optimizer, keras.optimizers.SGD)
    before = model.get_weights()
    np.testing.assert_array_equal(flat(loaded.get_weights()), flat(before))
    log_weights = [each.log_weights(x, M, K, (3, 4)) for each in (model, loaded)]
    np.testing.assert_array_equal(*log_weights)
    for ours, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if not row.thorough:
        return
    for each in (model, loaded):
        fit(each, x)
    np.testing.assert_array_equal(flat(loaded.get_weights()), flat(model.get_weights()))
    assert np.abs(flat(before) - flat(model.get_weights())).max() > 0
    model.set_weights(before)  # Those that are served.


def test_served_answers_are_the_models(row, model, exported, x):
    expected = likelihood.estimate_log_prob(model, x, SAMPLES, seed=5)
    answer = exported.estimate_log_prob(x, SAMPLES, seed=5)
    assert np.isfinite(answer.log_prob).all()
    np.testing.assert_allclose(answer.log_prob, expected.log_prob, rtol=1e-4)
    for name in importance.OUTPUTS:
        np.testing.assert_allclose(getattr(answer, name), getattr(expected, name), rtol=1e-3, atol=1e-4, err_msg=name)
    q = model.encoder.posterior(x)
    encoded = ask(exported, "encode", x=x)
    np.testing.assert_allclose(encoded["mean"], q.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoded["stddev"], q.stddev(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ask(exported, "reconstruct", x=x)["mean"], model(x), rtol=1e-4, atol=1e-5)
    z = requests(x, model.latent_size)["decode"]["z"]
    mean = model.decoder.likelihood(z).mean()
    np.testing.assert_allclose(ask(exported, "decode", z=z)["mean"], mean, rtol=1e-4, atol=1e-5)
    if row.kind == "table":
        asked = requests(x, model.latent_size, missing=True)["impute"]
        filled = imputation.impute(model, x[2:3], SAMPLES, num_imputations=1, seed=9)
        asked["num_samples"][2], asked["seed"][2] = SAMPLES, 9
        asked["x"] = np.concatenate([x[:5], np.full_like(x[:1], np.nan)])  # Of the last nothing is known.
        served = ask(exported, "impute", **asked)
        for name in ("mean", "stddev", "point", "log_prob", "ess"):
            np.testing.assert_allclose(served[name][2], getattr(filled, name)[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(served["draw"][2], filled.draws[0, 0], rtol=1e-4)
        np.testing.assert_allclose(served["log_prob"][5], 0.0, atol=1e-5)
    drawn = ask(exported, "sample", seed=np.arange(5))["x"]
    assert exported.estimate_log_prob(drawn, SAMPLES).in_support.all()
    assert b"_XlaMustCompile" not in (exported.path / "saved_model.pb").read_bytes()
    assert row.annealed == ("log_prob_annealed" in exported.signatures)
    if row.annealed:
        annealed = exported.estimate_log_prob(x, SAMPLES, seed=5, method="annealed").log_prob
        # Chains of so few temperatures are no good answer, but none that is far off.
        assert np.abs(annealed - answer.log_prob).max() < 5
    else:
        with pytest.raises(ValueError, match="z of its model cannot be annealed"):
            exported.estimate_log_prob(x, SAMPLES, method="annealed")


def test_each_row_depends_on_itself_alone(model, exported, x):
    """Bit for bit, in every signature; and a row that cannot be answered leaves its neighbours alone."""
    bad = x.copy()
    bad.reshape(len(x), -1)[1, 2] = OUTSIDE[model.decoder.head.kinds[0]]
    asked = requests(x, model.latent_size, missing=model.decoder.takes_missing)
    asked = {name: inputs for name, inputs in asked.items() if name in exported.signatures}
    assert sorted(asked) == sorted(exported.signatures)
    others, part = [0, 2, 3, 4, 5], [5, 2]
    for name, inputs in asked.items():
        whole = ask(exported, name, **inputs)
        some = ask(exported, name, part, **inputs)
        for key, value in whole.items():
            assert value.dtype == object or key == "probability" or not np.isnan(value).any()
            np.testing.assert_array_equal(some[key], value[part], err_msg=f"{name} {key}")
        if "x" in inputs:
            beside = ask(exported, name, **{**inputs, "x": bad})
            for key, value in whole.items():
                np.testing.assert_array_equal(beside[key][others], value[others], err_msg=f"{name} {key}")
            if "log_prob" in beside:
                assert list(beside["in_support"]) == [True, False, True, True, True, True]
                assert beside["log_prob"][1] == -np.inf


def test_the_loader_of_tensorflow_serving_gives_the_same(row, model, exported, x):
    """The C++ one, which knows nothing but the graph; for one row of each kind of data, a cheap one if there is one.

    The annealed signatures are loaded so in `saved_model_test`.
    """
    if row is not min((other for other in ROWS if other.kind == row.kind), key=lambda other: other.annealed):
        return
    names = ("log_prob", "reconstruct")
    asked = {name: requests(x, model.latent_size)[name] for name in names}
    expected = {name: ask(exported, name, **inputs) for name, inputs in asked.items()}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(exported.path))
        for name in names:
            signature, inputs = graph.signature_def[name], asked[name]
            received = session.run(
                {key: value.name for key, value in signature.outputs.items()},
                {signature.inputs[key].name: value for key, value in inputs.items()},
            )
            for key, value in expected[name].items():
                np.testing.assert_array_equal(received[key], value, err_msg=f"{name} {key}")


@pytest.mark.parametrize("row", [row for row in ROWS if row.replicas], ids=lambda row: row.likelihood, scope="module")
def test_two_replicas_train_to_the_weights_of_one(row, request):
    """Of the last batch, which has one example, a replica gets none."""
    if row.objective == "dreg":  # One head compiled is enough to see that replicas can be.
        request.getfixturevalue("optimized")
    x = dataset(row.likelihood, row.data_shape).test[:7]
    weights = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        with strategy.scope():
            model = built(row)
            # Not Adam, whose steps do not get smaller where a gradient is little but rounding.
            model.compile(keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01))
        before = flat(model.get_weights())
        fit(model, x)
        weights.append(flat(model.get_weights()))
    assert np.abs(weights[0] - before).max() > 100 * row.replicas
    np.testing.assert_allclose(*weights, rtol=0, atol=row.replicas)
