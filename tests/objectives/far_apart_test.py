"""The jackknife and the thermodynamic bounds of weights hundreds of nats apart, in both precisions."""

import decimals
import numpy as np
import pytest

from iwae_zoo import bounds

# Columns: examples. One dominates, then another the rest; two alike; nearly alike; a little above a half; ordinary.
SIX = np.array(
    [
        [200, 0, 1, 2, 0, 3],
        [400, 200, 0, 0, 1, 2],
        [40, 17, 1, 0, 2, 0.5],
        [200, 200, 0, 0, 1, 2],
        [1e-4, 2e-4, 0, -1e-4, 0, -2e-4],
        [0, -0.001, -50, -200, -70, -80],
        [1, 2, -1, 3, 0, 0.5],
        [0, 0, 0, 0, 0, 0],
    ]
).T
TWO = np.array([[200, 0], [1, 1], [0.3, 1]]).T


@pytest.mark.parametrize("log_weights", [SIX, TWO], ids=["six", "two"])
@pytest.mark.parametrize(
    "bound", [bounds.Jackknife(), bounds.Thermodynamic(points=4), bounds.ThermodynamicUpper(points=4)], ids=str
)
def test_right_in_both_precisions(bound, log_weights):
    function = decimals.jackknife
    if isinstance(bound, bounds.Thermodynamic):
        function = decimals.riemann_sum(bound.betas, bound.steps)
    exact = log_weights.astype("float32")
    value, a, derivative = map(np.array, zip(*(decimals.derivatives(function, x) for x in exact.T), strict=True))
    for dtype in ("float32", "float64"):
        tolerance = 100 * np.finfo(dtype).eps  # A weight of e^-87, the least that float32 has, is right to 87 of them.
        x = exact.astype(dtype)[np.newaxis]
        np.testing.assert_allclose(bound.value(x), value, rtol=tolerance, atol=tolerance / 5)
        np.testing.assert_allclose(bound.weights(x)[0].numpy().T, a, rtol=tolerance, atol=1e-30)
        np.testing.assert_allclose(bound.weight_derivatives(x)[0].numpy().T, derivative, rtol=tolerance, atol=1e-30)
