"""x as its user has it: other units are other densities, and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from toy_data import dataset

from iwae_zoo import data, objectives, presets


def trained(train, head="normal"):
    """A model after a few steps on raw numbers; `fit` warns of none of them."""
    source = data.Dataset("toy", train, train[:5], train[:5], "real")
    model = presets.build(
        "plane", data=source, objective=objectives.get("piwae", m=2, k=2), likelihood=head, hidden_sizes=(8,)
    )
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(train, batch_size=20, epochs=2, shuffle=False, verbose=0)
    return model


def log_prob(model, x):
    return tf.reduce_logsumexp(model.log_weights(x, 1, 40, (0, 0))[0], axis=0) - np.log(40)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "factor"), [("normal", 1000.0), ("student_t,spread=column", 1e-6), ("laplace,spread=0.5", 30.0)]
)
def test_other_units_change_log_prob_by_their_logarithm(head, factor):
    x = dataset("normal", (3,), 60).train
    model = trained(x, head)
    before = log_prob(model, x[:5])
    scaled = x * np.array([1.0, factor, 1.0], "float32")
    rescaled = trained(scaled, head)
    for ours, theirs in zip(rescaled.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    np.testing.assert_allclose(log_prob(rescaled, scaled[:5]), before - np.log(factor), rtol=0, atol=1e-4)
    np.testing.assert_allclose(rescaled(scaled[:5])[:, 1], factor * model(x[:5])[:, 1], rtol=1e-4)


def test_images_have_the_units_of_their_channels():
    source = dataset("normal", (4, 5, 2))
    model = presets.build("plane", data=source)
    head = model.decoder.head
    np.testing.assert_allclose(head.shift, source.train.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(head.scale, source.train.std(axis=(0, 1, 2)), rtol=1e-5)
    # The start is the best single distribution of each value, in raw units.
    np.testing.assert_allclose(head.independent().mean(), source.train.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(head.independent().stddev(), source.train.std(axis=0), rtol=1e-5)


@pytest.mark.slow
def test_constant_columns_are_no_division_by_zero():
    x = dataset("normal", (3,), 40).train
    x[:, 0], x[:, 2] = 0.0, 1e6
    assert np.isfinite(log_prob(trained(x), x)).all()
    assert np.isfinite(log_prob(trained(x, "student_t"), x)).all()


def test_another_number_of_columns_is_an_error():
    head = presets.build("plane", data=dataset("normal", (3,))).decoder.head
    with pytest.raises(ValueError, match="fitted to 3 columns: received x with 4"):
        head.features(np.zeros((2, 4), "float32"))
