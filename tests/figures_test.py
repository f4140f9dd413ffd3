"""What figures show: titles whole, and images of any number of channels."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from iwae_zoo import figures

TITLE = "Reconstructions, digits-miwae-m8-k8-hidden_sizes_200,200+100,100-prior_mixture_of_normals-epochs_300-seed0"
ROW = dict.fromkeys(["decoder_bound", "encoder_bound", "val_decoder_bound", "val_encoder_bound"], -1.0) | {"epoch": 1}


@pytest.mark.parametrize(
    "draw",
    [
        lambda title: figures.training_curves([ROW], title),
        lambda title: figures.image_grid(np.zeros([1, 2, 3, 3]), title),
        lambda title: figures.dispersion({"data": (np.ones(2), np.ones(2))}, title),
    ],
    ids=["training_curves", "image_grid", "dispersion"],
)
def test_a_long_title_is_whole(draw):
    figure = draw(TITLE)
    FigureCanvasAgg(figure).draw()
    title = figure.get_suptitle()
    assert "".join(title.split()) == "".join(TITLE.split())
    place = figure._suptitle.get_window_extent()
    assert 0 < place.x0 < place.x1 < figure.bbox.width
    assert place.y0 > figure.axes[0].get_window_extent().y1  # Above what is shown.
    assert draw("digits").get_figheight() < figure.get_figheight()


def test_dollars_of_users_are_no_formulas():
    names = ["gain_$ / loss_$", "x^$ and $_y"]
    rows = np.arange(6.0).reshape(3, 2)
    panel = {"pairs": {"data": rows}, "names": names}
    for figure in (
        figures.pairs({"data": rows}, names, "a $^ b $"),
        figures.side_by_side({"runs/$x_{$": panel}, "a $^ b $"),
        figures.image_grid(np.zeros([1, 2, 3, 3]), "a $^ b $", ["mean $^ $"]),
    ):
        FigureCanvasAgg(figure).draw()


def test_one_epoch_is_seen_and_long_names_are_cut():
    lines = figures.training_curves([ROW], "one").axes[0].get_lines()
    assert {line.get_marker() for line in lines} == {"x", "o"}
    lines = figures.training_curves([ROW, {**ROW, "epoch": 2}], "two").axes[0].get_lines()
    assert {line.get_marker() for line in lines} == {"None"}
    axes = figures.pairs({"data": np.zeros([3, 2])}, ["x" * 100, "y"], "x").axes[0]
    assert (len(axes.get_xlabel()), axes.get_ylabel()) == (24, "y")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_channels_without_colours_are_grey(channels, seed):
    x = np.random.default_rng(seed).random((1, 1, 4, 6, channels))
    (image,) = figures.image_grid(x, "x").axes[0].images
    np.testing.assert_allclose(image.get_array(), x[0, 0] if channels == 3 else x[0, 0].mean(axis=-1))
    panel = {"images": {"data": x[0]}}
    (image,) = figures.side_by_side({"a": panel}, "x").axes[0].images
    assert image.get_array().shape == ((6, 8, 3) if channels == 3 else (6, 8))


@pytest.mark.parametrize(("name", "begins"), [("drawn", b"\x89PNG"), ("drawn.png", b"\x89PNG"), ("drawn.pdf", b"%PDF")])
def test_a_file_is_a_png_unless_its_ending_says_otherwise(name, begins, tmp_path):
    figures.write(figures.image_grid(np.zeros([1, 1, 2, 2]), "x"), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [name]
