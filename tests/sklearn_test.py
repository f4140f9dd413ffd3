"""The scikit-learn estimators: their contract, a table whose answers are known, and the library's answers."""

import contextlib
import inspect
import pickle
import unittest
import zlib

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from iwae_zoo import imputation, likelihood
from iwae_zoo.sklearn import Imputer, LikelihoodEstimator

pytestmark = pytest.mark.filterwarnings("ignore:Even though")  # tf.data is not eager where functions are.
TINY = {"epochs": 1, "k": 2, "latent_size": 1, "hidden_sizes": (), "num_samples": 20, "method": "importance"}
HALVES = ShuffleSplit(1, test_size=0.5, random_state=0)
SCALE, SHIFT = np.array([1.0, 100.0, 0.01]), np.array([0.0, -1000.0, 5.0])


@pytest.fixture(scope="module")
def truth():
    """Three columns that share most of what they vary by, in units of their own."""
    loadings = np.array([[0.9], [0.8], [-0.7]])
    covariance = loadings @ loadings.T + np.diag(1.0 - loadings[:, 0] ** 2)
    return stats.multivariate_normal(SHIFT, SCALE[:, np.newaxis] * covariance * SCALE)


@pytest.fixture(scope="module")
def table(truth):
    """float64 array [500, 3], a fifth of it missing."""
    table = truth.rvs(500, random_state=0)
    table[np.random.RandomState(1).uniform(size=table.shape) < 0.2] = np.nan
    return table


def complete(table):
    return table[~np.isnan(table).any(axis=1)][:40]


@contextlib.contextmanager
def eagerly():
    """Functions that run once, on a few rows, are not worth tracing."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def tiny(table):
    """An imputer, which is also a likelihood estimator, of next to no training, that has never seen a hole."""
    with eagerly():
        return Imputer(**TINY, random_state=0).fit(complete(table))


@pytest.mark.slow
@tf.autograph.experimental.do_not_convert  # AutoGraph would rewrite what loops over the rows, each time.
def test_contract_of_scikit_learn(eager):
    """Every check; those that know `transform` of the imputer alone, where they call what the other has, too."""
    for name in ("fit", "score", "score_samples", "sample"):
        assert getattr(Imputer, name) is getattr(LikelihoodEstimator, name)
    passed = set()
    for kind in (Imputer, LikelihoodEstimator):
        before = len(passed)
        for estimator, check in estimator_checks_generator(kind(**TINY, random_state=0)):
            this = (check.func, *check.keywords.items())
            if this not in passed and (kind is LikelihoodEstimator or "transform" in inspect.getsource(check.func)):
                with contextlib.suppress(unittest.SkipTest):  # Some want pandas or polars.
                    check(estimator)
                    passed.add(this)
        assert len(passed) > before + 10


@pytest.mark.slow
def test_learns_what_is_known(truth, table):
    imputer = Imputer(hidden_sizes=(32,), latent_size=2, epochs=60, batch_size=100, learning_rate=0.02)
    imputer.set_params(schedule="cosine", num_samples=200, method="importance", random_state=0).fit(table)
    x = truth.rvs(400, random_state=2)
    assert imputer.score(x) == pytest.approx(truth.logpdf(x).mean(), abs=0.1)
    only_first = np.where([True, False, False], x, np.nan)
    assert imputer.score(only_first) == pytest.approx(stats.norm(SHIFT[0], SCALE[0]).logpdf(x[:, 0]).mean(), abs=0.05)
    # E[x_2, x_3 | x_1] of a Normal distribution.
    expected = SHIFT + truth.cov[0] / truth.cov[0, 0] * (x[:, :1] - SHIFT[0])
    error = np.sqrt(np.mean(((imputer.transform(only_first) - expected) / SCALE) ** 2, axis=0))
    assert error[0] == 0.0 and (error < 0.15).all()
    drawn = imputer.sample(4000)
    assert (drawn.mean(axis=0) - SHIFT) / SCALE == pytest.approx(0.0, abs=0.1)
    assert np.corrcoef(drawn.T) == pytest.approx(np.corrcoef(x.T), abs=0.1)


@pytest.mark.slow
def test_one_nan_is_as_good_as_another(tiny, table):
    """0 / 0 has another sign than numpy's own."""
    holed = np.array(table[:3])
    holed[0, 0] = np.nan
    other = holed.copy()
    other[0, 0] = -np.float64(np.nan)
    assert holed.tobytes() != other.tobytes()
    np.testing.assert_array_equal(tiny.score_samples(holed), tiny.score_samples(other))


def test_score_samples_is_the_likelihood(tiny, table):
    x = table[40:45].astype(np.float32)
    rows = [zlib.crc32(row.tobytes()) >> 1 for row in x]
    expected = likelihood.estimate_log_prob(tiny.model_, x, 20, tiny.seed_, rows=rows)
    scores = tiny.score_samples(table[40:45])
    assert scores.tolist() == expected.log_prob.tolist()
    assert tiny.score(table[40:45]) == np.mean(scores)
    # Wherever a row stands, and of equal rows each.
    assert tiny.score_samples(table[[43, 41, 43]]).tolist() == scores[[3, 1, 3]].tolist()
    for zero in (-0.0, 1e-40):  # Below what is normal in float32 are zeros, as in tables.
        assert tiny.score_samples([[0.0, 1.0, 2.0]]) == tiny.score_samples([[zero, 1.0, 2.0]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_transform_is_the_mean(tiny, table, dtype):
    holes = table[40:60].astype(dtype)
    missing = np.isnan(holes)
    asked = holes[missing.any(axis=1)].astype(np.float32)
    rows = [zlib.crc32(row.tobytes()) >> 1 for row in asked]
    expected = holes.copy()
    expected[missing.any(axis=1)] = imputation.impute(tiny.model_, asked, 20, 1, tiny.seed_, rows=rows).mean
    filled = tiny.transform(holes)
    assert filled.dtype == dtype and missing.any(axis=1).sum() < len(holes)
    assert filled[missing].tolist() == expected[missing].tolist()
    assert filled[~missing].tobytes() == holes[~missing].tobytes()
    assert np.isnan(holes).any()  # What was passed is left as it was.
    assert tiny.transform(holes[::-1])[::-1].tolist() == filled.tolist()
    assert tiny.get_feature_names_out(["a", "b", "c"]).tolist() == ["a", "b", "c"]


@pytest.mark.slow
@tf.autograph.experimental.do_not_convert
def test_pickled_and_random_state(tiny, table, eager):
    again = pickle.loads(pickle.dumps(tiny))
    fitted = clone(tiny).fit(complete(table))
    other = clone(tiny).set_params(random_state=np.random.RandomState(1)).fit(complete(table))
    x = table[40:44]
    assert np.isnan(x).any()
    scores, filled = tiny.score_samples(x), tiny.transform(x)
    for same in (again, fitted):
        assert same.score_samples(x).tobytes() == scores.tobytes()
        assert same.transform(x).tobytes() == filled.tobytes()
        assert same.sample(3).tolist() == tiny.sample(3).tolist()
    assert (other.score_samples(x) != scores).any()
    assert (other.sample(3) != other.sample(3)).all()  # A RandomState moves on.
    with pytest.raises(ValueError, match="n_samples must be an integer"):
        tiny.sample(0)


@pytest.mark.slow
def test_pipeline(table):
    target = np.arange(40.0)
    pipeline = make_pipeline(Imputer(**TINY, random_state=0), LinearRegression())
    assert np.isfinite(cross_val_score(pipeline, table[:40], target, cv=HALVES, error_score="raise")).all()


@pytest.mark.slow
@tf.autograph.experimental.do_not_convert
def test_grid_search(table, eager):
    columns = FunctionTransformer(lambda x: x[:, :2])
    grid = {"likelihoodestimator__epochs": [1, 5]}
    estimator = LikelihoodEstimator(**TINY, batch_size=20, learning_rate=0.2, random_state=0)
    search = GridSearchCV(make_pipeline(columns, estimator), grid, cv=HALVES, error_score="raise").fit(table[:20])
    few, many = search.cv_results_["mean_test_score"]
    assert many > few + 0.05 and search.best_params_ == {"likelihoodestimator__epochs": 5}
    assert search.score_samples(table[:3]).shape == (3,)


@pytest.mark.slow
def test_data_frames(table):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table[:40], columns=["a", "b", "c"], index=range(100, 140))
    imputer = Imputer(**TINY, random_state=0).set_output(transform="pandas").fit(frame)
    filled = imputer.transform(frame)
    assert imputer.feature_names_in_.tolist() == list(filled.columns) == ["a", "b", "c"]
    assert filled.index.equals(frame.index) and not filled.isna().any(axis=None)
    assert filled.equals(frame.fillna(filled))
    assert imputer.transform(frame.convert_dtypes()).equals(filled)  # With pandas.NA.
    with pytest.raises(ValueError, match="feature names should match"):
        imputer.transform(frame[["b", "a", "c"]])
    with pytest.raises(ValueError, match="in column c. Leave it out"):
        imputer.fit(frame.assign(c=np.nan))


@pytest.mark.parametrize("method", ["score_samples", "score", "transform"])
def test_tables_that_it_cannot_take(tiny, table, method):
    ask = getattr(tiny, method)
    with pytest.raises(ValueError, match="X has 2 features, but Imputer is expecting 3 features"):
        ask(table[:, :2])
    with pytest.raises(ValueError, match=r"Input X contains infinity or a value too large for dtype\('float64'\)"):
        ask([[0.0, np.inf, 0.0]])
    with pytest.raises(ValueError, match=r"Input X contains infinity or a value too large for dtype\('float32'\)"):
        ask([[np.nan, 1e300, 0.0]])
    with pytest.raises(NotFittedError):
        getattr(Imputer(), method)(table)
    failed = Imputer(objective="ivae")
    with pytest.raises(ValueError, match="ivae"):
        failed.fit(table)
    for each in (Imputer(), failed):
        with pytest.raises(NotFittedError):
            each.sample()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("objective", "iwea", "Unknown objective: received 'iwea'. Did you mean 'iwae'"),
        ("m", 0, "m must be an integer of at least 1: received 0"),
        ("preset", "none", "Unknown preset: received 'none'"),
        ("likelihood", "bernoulli", "The likelihood 'bernoulli' is for data of kind binary"),
        ("hidden_sizes", (4.5,), "hidden_sizes must be an integer"),
        ("epochs", 0, "epochs must be an integer of at least 1: received 0"),
        ("batch_size", 2.5, "batch_size must be an integer of at least 1: received 2.5"),
        ("learning_rate", -1.0, "learning_rate must be a positive number: received -1.0"),
        ("learning_rate", np.nan, "learning_rate must be a positive number: received nan"),
        ("schedule", "cosin", "Unknown schedule: received 'cosin'. Did you mean 'cosine'"),
        ("num_samples", 0, "num_samples must be an integer of at least 1: received 0"),
        ("method", "exact", "Unknown method of estimating log p"),
        ("random_state", "x", "'x' cannot be used to seed"),
    ],
)
def test_parameters_are_checked_in_fit(table, name, value, message):
    with pytest.raises(ValueError, match=message):
        Imputer(**{name: value}).fit(table[:10])


@tf.autograph.experimental.do_not_convert
def test_lost_digits_are_told(eager):
    """Once it is fitted, nothing could be seen of them; and a few rows that are alike say nothing of the table."""
    times = 1.7e9 + 10.0 * np.random.default_rng(0).normal(size=(20, 2))
    with pytest.warns(UserWarning, match="numbers of column 1 differ by so little"):
        LikelihoodEstimator(**TINY).fit(np.column_stack([times[:, 0] - 1.7e9, times[:, 1]]))
    wide = 1e6 + 1e3 * np.random.default_rng(0).normal(size=(20, 1))
    LikelihoodEstimator(**TINY).fit(wide).score_samples(np.array([[1000000.01], [1000000.02]]))
