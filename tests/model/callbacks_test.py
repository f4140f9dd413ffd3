"""What a Keras user passes to `fit`: callbacks, arrays, mistakes."""

import csv
import pathlib
import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import toy_data

from iwae_zoo import ImportanceWeightedAutoencoder, likelihood, networks, objectives, presets
from iwae_zoo._rows import Rows
from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.model import examples
from iwae_zoo.testing import LinearGaussian

CALLBACKS = keras.callbacks
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def x():
    return (np.random.default_rng(0).random((40, 3, 3)) < 0.4).astype("float32")


def fresh(**options):
    model = ImportanceWeightedAutoencoder(
        networks.MLPEncoder(2, (4,)), networks.MLPDecoder((3, 3), (4,)), networks.StandardNormalPrior(2), **options
    )
    model.compile(optimizer="adam")
    return model


@pytest.mark.slow
def test_every_callback_on_an_array(x, tmp_path):
    """Of a model that is not built, in one run."""
    seen, last = [], []

    def look(epoch, logs):
        seen.append(model.optimizer.learning_rate)
        last[:] = model.get_weights()

    model = fresh(objective=objectives.get("piwae", m=2, k=3))
    model.fit(
        x,
        validation_data=(x[:10],),
        batch_size=20,
        epochs=4,
        verbose=0,
        callbacks=[
            CALLBACKS.BackupAndRestore(tmp_path / "backup"),
            CALLBACKS.CSVLogger(tmp_path / "log.csv"),
            CALLBACKS.EarlyStopping(patience=10, restore_best_weights=True),
            CALLBACKS.LearningRateScheduler(lambda epoch, rate: 0.01 * 0.5**epoch),
            CALLBACKS.LambdaCallback(on_epoch_end=look),
            CALLBACKS.ModelCheckpoint(
                tmp_path / "best.keras", monitor="val_decoder_bound", mode="max", save_best_only=True
            ),
            CALLBACKS.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True),
            CALLBACKS.TensorBoard(tmp_path / "logs"),
            CALLBACKS.TerminateOnNaN(),
        ],
    )
    np.testing.assert_allclose(seen, [0.01, 0.005, 0.0025, 0.00125], rtol=1e-6)
    assert int(model.optimizer.iterations) == 8
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        assert float(row["loss"]) == pytest.approx(-float(row["decoder_bound"]))
    # The best epoch's model is whole: both optimizers have seen as many steps as that epoch had.
    bounds = [float(row["val_decoder_bound"]) for row in rows]
    best = keras.saving.load_model(tmp_path / "best.keras")
    assert int(best.decoder_optimizer.iterations) == int(best.encoder_optimizer.iterations)
    assert int(best.optimizer.iterations) == 2 * (1 + int(np.argmax(bounds)))
    assert best.evaluate(x[:10], verbose=0, return_dict=True)["decoder_bound"] == pytest.approx(max(bounds), rel=1e-5)
    other = fresh(seed=1)
    other.build((None, 3, 3))
    other.load_weights(tmp_path / "last.weights.h5")
    for ours, theirs in zip(other.get_weights(), last, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert list((tmp_path / "logs").rglob("events*"))


@pytest.mark.slow
def test_early_stopping_brings_the_best_weights_back(x):
    """A learning rate that ruins the second epoch."""
    model = fresh()
    kept = []
    model.fit(
        x,
        validation_data=(x,),
        epochs=10,
        verbose=0,
        callbacks=[
            CALLBACKS.LearningRateScheduler(lambda epoch, rate: 0.01 if epoch == 0 else 3.0),
            CALLBACKS.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights())),
            CALLBACKS.EarlyStopping(monitor="val_elbo", mode="max", patience=2, restore_best_weights=True),
        ],
    )
    assert len(kept) == 3
    for ours, theirs in zip(model.get_weights(), kept[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_reduce_on_plateau_moves_both_rates(x):
    model = fresh()
    model.compile(encoder_optimizer=keras.optimizers.Adam(1e-9), decoder_optimizer=keras.optimizers.Adam(2e-9))
    plateau = CALLBACKS.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=1, min_delta=10.0)
    model.fit(x, epochs=3, verbose=0, callbacks=[plateau])
    assert float(model.encoder_optimizer.learning_rate) == pytest.approx(1e-11, rel=1e-5)
    assert float(model.decoder_optimizer.learning_rate) == pytest.approx(2e-11, rel=1e-5)


@pytest.mark.slow
def test_backup_goes_on_where_it_was_cut_off(x, tmp_path):
    class Interrupted(CALLBACKS.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(model, *callbacks):
        model.fit(x, epochs=4, batch_size=20, shuffle=False, verbose=0, callbacks=list(callbacks))
        return model.get_weights()

    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), CALLBACKS.BackupAndRestore(tmp_path), Interrupted())
    # The bytes of a run that nothing disturbed: both optimizers' states were restored.
    for ours, theirs in zip(fit(fresh(), CALLBACKS.BackupAndRestore(tmp_path)), fit(fresh()), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_terminate_on_nan_ends_training_with_the_weights_whole(x):
    model = fresh()
    model.compile(optimizer=keras.optimizers.SGD(1e30))
    history = model.fit(x, batch_size=20, epochs=3, verbose=0, callbacks=CALLBACKS.TerminateOnNaN()).history
    assert np.isfinite(history["loss"]).tolist() == [False]
    assert int(model.optimizer.iterations) == 1  # What the first step has led to, the second cannot use.
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    with pytest.raises(tf.errors.InvalidArgumentError, match="lower the learning rate"):
        model.fit(x, batch_size=20, verbose=0)  # Batches of the same shape, which alone would not trace the step anew.


def test_terminate_on_nan_leaves_momentum_out(x):
    model = fresh()
    model.compile(optimizer=keras.optimizers.Adam(0.1))
    model.fit(x, batch_size=20, verbose=0)
    before = model.get_weights()
    broken = tf.data.Dataset.from_tensors(np.full_like(x[:20], np.nan))
    model.fit(broken, None, None, 1, 0, [CALLBACKS.TerminateOnNaN()], shuffle=False)  # By position, as Keras has it.
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(tf.errors.InvalidArgumentError, match="log weights of a training batch are not finite"):
        model.train_on_batch(np.full_like(x[:20], np.nan))  # Where no callback can end anything.


def test_a_list_of_callbacks_that_is_keras_own(x):
    """As a plain one: with averaged weights at the end, and an end where nothing is finite."""
    models = [fresh(), fresh()]
    for model in models:
        model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    seen = []
    plain = [CALLBACKS.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)), CALLBACKS.TerminateOnNaN()]
    for model, callbacks in zip(models, (plain, CALLBACKS.CallbackList(plain)), strict=True):
        model.fit(x, batch_size=20, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    assert seen == [0, 1] * 2
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    broken = tf.data.Dataset.from_tensors(np.full_like(x[:20], np.nan))
    models[1].fit(broken, verbose=0, shuffle=False, callbacks=CALLBACKS.CallbackList([CALLBACKS.TerminateOnNaN()]))


def test_four_lines(x):
    model = presets.build("plane", data_shape=x.shape[1:], objective="iwae")
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    history = model.fit(x, batch_size=20, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert isinstance(model.decoder_optimizer, keras.optimizers.SGD)


def test_nan_is_told_by_its_row_before_training(x):
    broken = x.copy()
    broken[7, 1, 2] = np.nan
    for arguments in ({"x": broken}, {"x": x, "validation_data": (broken,)}, {"x": x, "validation_data": broken}):
        with pytest.raises(ValueError, match="holds NaN or infinity in 1 of 40 examples, the first at row 7"):
            fresh().fit(**arguments, verbose=0)


def test_a_model_that_is_not_compiled_says_so(x):
    model = presets.build("plane", data_shape=x.shape[1:])
    with pytest.raises(ValueError, match=r"You must call `compile\(\)`"):
        model.fit(x, verbose=0)


@pytest.mark.slow
def test_another_shape_is_told_before_anything_is_traced(x, monkeypatch):
    model = fresh()
    with pytest.raises(ValueError, match=r"validation_data must have shape \[B, 3, 3\]: received shape \[40, 2, 3\]"):
        model.fit(x, validation_data=x[:, :2], verbose=0)
    monkeypatch.setattr(model, "train_step", None)
    monkeypatch.setattr(model, "test_step", None)
    wrong = [x[..., np.newaxis], x[:, :2], x[0], x[:, 0, 0]]
    wrong += [tf.data.Dataset.from_tensor_slices(rows).batch(4) for rows in wrong[:2]]
    wrong += [wrong[-1].map(lambda rows: (rows, rows)), tf.constant(wrong[0])]
    for call in (model.fit, model.evaluate, lambda rows, verbose: model.fit(x, validation_data=(rows, rows))):
        for rows in wrong:
            with pytest.raises(ValueError, match=r"must have shape \[B, 3, 3\]: received shape \[(None|40|3)[],]"):
                call(rows, verbose=0)
    with pytest.raises(ValueError, match=r"received shape \[3, 3\]. Add a batch axis: x\[np.newaxis\]"):
        model.fit(x[0])
    with pytest.raises(ValueError, match=r"received shape \[3, 3\]. Add a batch axis: x.batch"):
        model.evaluate(tf.data.Dataset.from_tensor_slices(x))


def test_a_shape_that_is_not_known_beforehand_is_no_other(x):
    model = fresh()
    unknown = tf.data.Dataset.from_generator(lambda: iter([x]), tf.float32)
    partly = tf.data.Dataset.from_generator(lambda: iter([x]), output_signature=tf.TensorSpec([None, 3, None]))
    model.build((None, 3, 3))
    for rows in (unknown, partly):
        examples.check_shape(model, rows)
    with pytest.raises(ValueError, match=r"received shape \[None, 2, None\]"):
        examples.check_shape(model, partly.map(lambda rows: rows[:, :2]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_grey_values_are_told_by_their_row_before_training(x, dtype, monkeypatch):
    grey = x.astype(dtype)
    grey[[7, 9], 1, 2] = 255 if dtype == "uint8" else 0.5
    message = r"a Bernoulli takes 0 and 1 only: binarise grey values\) in 2 of 40 examples, the first at row 7"
    monkeypatch.setattr(Rows, "blocks", lambda rows: (rows[i : i + 3] for i in range(0, 40, 3)))
    for rows in (grey, tf.constant(grey)):
        with pytest.raises(ValueError, match=f"x is outside the support of the likelihood .{message}"):
            fresh().fit(rows, verbose=0)
    with pytest.raises(ValueError, match=f"validation_data is outside the support of the likelihood .{message}"):
        fresh().fit(x, validation_data=(grey,), verbose=0)


def test_what_no_column_of_a_table_holds_is_told_by_its_row():
    """Missing values are in every support; columns are read group by group."""
    rows = toy_data.examples("table", 20, (5,))
    decoder = types.SimpleNamespace(head=likelihoods.Columns(columns=toy_data.COLUMNS).fitted(rows))
    assert np.isnan(rows).any()
    examples.check_support(decoder, rows)
    for place, value in ((1, -1.0), (2, 0.5), (3, 2.0), (4, 3.0)):
        wrong = rows.copy()
        wrong[6, place] = value
        with pytest.raises(ValueError, match="in 1 of 20 examples, the first at row 6"):
            examples.check_support(decoder, wrong)
    examples.check_support(types.SimpleNamespace(head=None), wrong)


@pytest.mark.slow
def test_columns_far_from_any_scale_are_named():
    exact = LinearGaussian.random(latent_size=2, data_size=3)
    x = exact.sample(20).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = exact.model()
        model.compile("adam")
        model.fit(x, verbose=0)
    x[:, 1] = 500 + 20 * x[:, 1]
    with pytest.warns(UserWarning, match="in columns 1 "):
        model.fit(tf.constant(x), verbose=0)
    with pytest.warns(
        UserWarning, match=r"in columns 1 \(about 5\d\d\): training may go nowhere. Standardise"
    ) as caught:
        model.fit(x, verbose=0)
    assert len([warning for warning in caught if "Standardise" in str(warning.message)]) == 1


@keras.saving.register_keras_serializable(package="callbacks_test")
class SharingDecoder(keras.Layer):
    """A decoder that reads z through the encoder's own first layer."""

    def __init__(self, shared, **kwargs):
        super().__init__(**kwargs)
        self.shared = shared
        self.out = keras.layers.Dense(3)

    def likelihood(self, z):
        logits = self.out(self.shared(tf.reshape(z, [-1, z.shape[-1]])))
        return tfp.distributions.Independent(tfp.distributions.Bernoulli(tf.reshape(logits, [*z.shape[:-1], 3])), 1)


def test_a_layer_of_two_networks_is_an_error():
    shared = keras.layers.Dense(4, name="both")
    body = keras.Sequential([shared, keras.layers.Dense(6)])
    model = ImportanceWeightedAutoencoder(
        networks.Encoder(body, posteriors.Normal(3)), SharingDecoder(shared), networks.StandardNormalPrior(3)
    )
    message = "both optimizers would move them: .*both/kernel, .*both/bias"
    with pytest.raises(ValueError, match=message):
        model.build((None, 3))
    shared.trainable = False  # As it is, nobody moves it.
    model.build((None, 3))
    model.compile("adam")
    shared.trainable = True
    with pytest.raises(ValueError, match=message):
        model.compile("adam")


@pytest.mark.slow
def test_a_file_of_an_older_version_goes_on():
    """Written by version 0.1 before bodies and heads were apart, with what it then answered and trained to."""
    x = (np.random.default_rng(0).random((40, 3, 3, 1)) < 0.5).astype("float32")
    model = keras.saving.load_model(GOLDEN / "version_0_1.keras")
    before = likelihood.estimate_log_prob(model, x[:3], 100).log_prob
    np.testing.assert_allclose(before, [-5.861237040646605, -5.981053662383591, -5.628092374114935], rtol=1e-6)
    model.fit(x, batch_size=10, epochs=1, verbose=0, shuffle=False)
    after = likelihood.estimate_log_prob(model, x[:3], 100).log_prob
    np.testing.assert_allclose(after, [-5.818723709907184, -5.979989520361723, -5.623788860732962], rtol=1e-5)
