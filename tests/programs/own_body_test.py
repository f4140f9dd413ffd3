"""Networks of one's own, by the name of a module in the current folder."""

import json
import sys

import keras
import pytest
from inprocess import call

from iwae_zoo import presets
from iwae_zoo._files import load_model
from iwae_zoo.programs import evaluate, export, impute, train

OWN = """
import keras

from iwae_zoo import networks
from iwae_zoo.networks import bodies


@keras.saving.register_keras_serializable(package="own_body_toy")
class Own(networks.Perceptron):
    pass


def encoder(posterior, data_shape, *, hidden_sizes, **options):
    return Own(hidden_sizes, posterior.num_parameters, **options)


BODY = bodies.Body(encoder, bodies.TABLE["perceptron"].decoder)
"""


@pytest.fixture
def folder(tmp_path):
    """A model of a class that only own_body_toy.py in the folder knows, in the work directory `run`."""
    (tmp_path / "own_body_toy.py").write_text(OWN)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"config": {"network": "own_body_toy:BODY"}}))

    def forget():
        sys.modules.pop("own_body_toy", None)
        keras.saving.get_custom_objects().pop("own_body_toy>Own", None)

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        model = presets.build("plane", data_shape=(3,), network="own_body_toy:BODY", hidden_sizes=(2,))
    model.save(tmp_path / "run" / "model.keras")
    forget()
    yield tmp_path
    forget()


@pytest.mark.parametrize(
    ("program", "flags", "message"),
    [  # What is asked of the model once it is there.
        (evaluate, ["--model=run/model.keras", "--dataset=no.npy"], "no.npy"),
        (impute, ["--model=run/model.keras", "--input=a.npy", "--output=b.npz"], "The model takes no missing values"),
        (export, ["--workdir=run", "--export_dir=models", "--tile_rows=8"], "multiple of 48"),
        (train, ["--network=own_body_toy:keras"], "must be a networks.bodies.Body: received <module 'keras'"),
    ],
    ids=["evaluate", "impute", "export", "train"],
)
def test_programs_find_them_in_the_current_folder(program, flags, message, folder):
    result = call(program, *flags, cwd=folder)
    assert message in result.stderr
    assert "own_body_toy" in sys.modules


def test_a_module_that_is_not_there_is_named(folder):
    result = call(evaluate, "--model=model.keras", cwd=folder / "run")
    assert "is of classes that are not here: No module named 'own_body_toy'." in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_module_is_not_needed_for_everybodys_classes(folder):
    presets.build("plane", data_shape=(3,), hidden_sizes=(2,)).save(folder / "run" / "model.keras")
    assert load_model(folder / "run" / "model.keras").latent_size == 2
