"""Two optimizers that callbacks see as one."""

import keras
import numpy as np
import pytest

from iwae_zoo.model.optimizers import OptimizerPair


def rates(pair):
    return [float(optimizer.learning_rate) for optimizer in (pair.encoder, pair.decoder)]


def test_one_optimizer_is_copied_with_its_settings():
    given = keras.optimizers.SGD(0.5, momentum=0.25)
    pair = OptimizerPair.of(given)
    assert len({id(optimizer) for optimizer in (given, pair.encoder, pair.decoder)}) == 3
    assert pair.encoder.get_config() == {**given.get_config(), "name": f"encoder_{given.name}"}
    assert pair.decoder.get_config() == {**given.get_config(), "name": f"decoder_{given.name}"}
    for optimizer in (pair.encoder, pair.decoder):
        assert not pair.built
        optimizer.build([keras.Variable(np.zeros(2, "float32"))])
    assert pair.built
    assert [id(v) for v in pair.variables] == [id(v) for side in (pair.encoder, pair.decoder) for v in side.variables]


def test_of_two_the_one_that_is_given_stands_for_its_side():
    pair = OptimizerPair.of("adam", decoder=keras.optimizers.SGD(0.5))
    assert isinstance(pair.encoder, keras.optimizers.Adam)
    assert isinstance(pair.decoder, keras.optimizers.SGD)
    pair = OptimizerPair.of("adam", encoder="sgd")
    assert isinstance(pair.encoder, keras.optimizers.SGD)
    assert isinstance(pair.decoder, keras.optimizers.Adam)
    pair = OptimizerPair.of(encoder=keras.optimizers.SGD(name="slow"), decoder="adam")
    assert pair.name.startswith("slow+decoder_adam")
    same = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="must be two instances"):
        OptimizerPair.of(encoder=same, decoder=same)


def test_learning_rate_keeps_the_ratio_through_zero():
    pair = OptimizerPair.of(encoder=keras.optimizers.Adam(1e-3), decoder=keras.optimizers.Adam(4e-3))
    assert pair.learning_rate == pytest.approx(4e-3)
    pair.learning_rate = 0.04
    np.testing.assert_allclose(rates(pair), [0.01, 0.04], rtol=1e-6)
    pair.learning_rate = 0.0
    assert rates(pair) == [0.0, 0.0]
    pair.learning_rate = 8e-3
    np.testing.assert_allclose(rates(pair), [2e-3, 8e-3], rtol=1e-6)
    # A ratio that was changed by hand is the one to keep.
    pair.encoder.learning_rate = 8e-3
    pair.learning_rate = 1e-3
    np.testing.assert_allclose(rates(pair), [1e-3, 1e-3], rtol=1e-6)


def test_a_schedule_is_read_and_not_overruled():
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    pair = OptimizerPair.of(keras.optimizers.Adam(schedule))
    assert pair.learning_rate == pytest.approx(0.5)
    pair = OptimizerPair.of(encoder=keras.optimizers.Adam(0.25), decoder=pair.decoder)
    with pytest.raises(TypeError, match="a schedule, that cannot be set"):
        pair.learning_rate = 0.1
    assert float(pair.encoder.learning_rate) == 0.25  # Nor is the one that could be.


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """One that does not say how it is made, as in many a tutorial."""

    def __call__(self, step):
        return 0.5 ** (1.0 + keras.ops.cast(step, "float32"))


@pytest.mark.parametrize("rate", [Halving(), lambda: 0.5], ids=["schedule", "function"])
def test_a_rate_of_ones_own_is_both_copies(rate):
    given = keras.optimizers.SGD(rate)
    pair = OptimizerPair.of(given)
    for optimizer in (pair.encoder, pair.decoder):
        variable = keras.Variable(np.ones(2, "float32"))
        optimizer.apply([np.ones(2, "float32")], [variable])
        np.testing.assert_allclose(variable, 0.5)
    assert given._learning_rate is rate and int(given.iterations) == 0


def test_what_is_in_no_configuration_is_copied_too():
    given = keras.optimizers.SGD(0.5, weight_decay=0.5)
    given.exclude_from_weight_decay(var_names=["bias"])
    for optimizer in (OptimizerPair.of(given).encoder, OptimizerPair.of(given).decoder):
        variables = [keras.Variable(np.ones(1, "float32"), name=name) for name in ("kernel", "bias")]
        optimizer.apply([np.zeros(1, "float32")] * 2, variables)
        np.testing.assert_allclose(np.ravel(variables), [0.75, 1.0])


def test_what_cannot_be_copied_or_scales_is_refused():
    class Own(keras.optimizers.SGD):
        def __init__(self):
            super().__init__(0.5)

    with pytest.raises(ValueError, match="An? Own cannot be copied .*pass two, as encoder_optimizer and decoder_opt"):
        OptimizerPair.of(Own())
    OptimizerPair.of(encoder=Own(), decoder=Own())
    with pytest.raises(ValueError, match="loss_scale_factor divides gradients of a loss that nothing has multiplied"):
        OptimizerPair.of(keras.optimizers.SGD(0.5, loss_scale_factor=1024.0))
