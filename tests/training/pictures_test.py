"""Which figures show which data."""

import numpy as np
import pytest

from iwae_zoo import data, presets
from iwae_zoo.training import pictures


@pytest.mark.parametrize(
    ("shape", "names"),
    [((6,), {"pairs", "dispersion"}), ((4, 4, 1), {"samples", "reconstructions", "dispersion"})],
    ids=["columns", "images"],
)
def test_counts_have_means_against_variances(shape, names, tmp_path):
    counts = np.random.RandomState(0).poisson(3.0, [60, *shape])
    np.save(tmp_path / "counts.npy", counts)
    model = presets.build("plane", data=data.load(str(tmp_path / "counts.npy")), objective="iwae")
    drawn = pictures.draw(model, counts.astype(np.float32), 0, "a test")
    assert set(drawn) == names
    lines = {line.get_label(): line.get_data() for line in drawn["dispersion"].axes[0].lines}
    flat = counts.reshape(60, -1)
    assert np.stack(lines["data"]) == pytest.approx(np.stack([flat.mean(axis=0), flat.var(axis=0)]), rel=1e-5)
