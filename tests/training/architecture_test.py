"""What flags and configurations say about networks."""

import json

import pytest
from inprocess import call

from iwae_zoo import objectives, presets, training
from iwae_zoo.programs import train


def test_the_fields_of_a_preset():
    config = training.Config(latent_size="8,2", hidden_sizes="20,10+5", posterior="student_t")
    assert config.architecture == {
        "latent_size": (8, 2),
        "hidden_sizes": ((20, 10), (5,)),
        "posterior": "student_t",
    }
    assert training.Config().architecture == {}
    assert training.Config(hidden_sizes="").architecture == {"hidden_sizes": ()}
    assert config.resolved().architecture == config.architecture
    assert "latent_size_8,2-hidden_sizes_20,10+5" in config.title
    model = presets.build("plane", data_shape=(4,), **training.Config(latent_size="3", hidden_sizes="7").architecture)
    assert model.latent_size == 3
    assert model.encoder.body.hidden_sizes == (7,)


def test_a_preset_has_an_objective():
    config = training.Config(preset="sbn_8")
    assert config.resolved().objective == "rws"
    assert config.title == training.Config(preset="sbn_8", objective="rws").title
    assert training.Config().resolved().objective == "iwae"


def test_a_preset_has_particles():
    def chosen(**options):
        config = training.Config(**options).resolved()
        return config.preset, config.objective, config.m, config.k

    assert chosen() == ("small", "iwae", 8, 8)
    assert chosen(dataset="mnist") == ("modern", "dreg", 1, 8)
    assert chosen(dataset="mnist", objective="piwae", m=2, k=5) == ("modern", "piwae", 2, 5)
    assert chosen(from_preset="breast_cancer_table") == ("breast_cancer_table", "iwae", 1, 20)
    assert training.Config(dataset="mnist").title == "mnist-dreg-m1-k8-seed0"
    assert training.Config(dataset="mnist", m=2).build_objective() == objectives.get("dreg", m=2, k=8)
    assert presets.build("modern", data_shape=(3, 3, 1)).objective == objectives.get("dreg", m=1, k=8)
    assert presets.build("modern", data_shape=(3, 3, 1), objective="iwae").objective == objectives.get("iwae", m=1, k=8)
    table = presets.load("breast_cancer_table", objective="piwae")
    assert table.objective == objectives.get("piwae", m=1, k=20)


def test_without_data_x_is_what_the_preset_was_made_for():
    for name, likelihood in (("real_small", "normal"), ("counts", "negative_binomial"), ("small", "bernoulli")):
        assert presets.build(name, data_shape=(3,)).decoder.head.name == likelihood
    with pytest.raises(ValueError, match="knows no table"):
        presets.build("table", data_shape=(3,))
    assert "15,820 weights" in presets.describe("real_small")
    assert "weights" not in presets.describe("table")
    assert "48,750 weights" in presets.describe("breast_cancer_table")


def test_what_cannot_be_annealed_is_an_error_before_training(tmp_path):
    config = training.Config(preset="sbn_8", m=1, k=4, eval_method="annealed")
    with pytest.raises(ValueError, match="Annealing moves z along gradients"):
        training.Run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"latent_size": "8,two"},
            "latent_size must be integers with commas between them, such as 100,50: received '8,two'",
        ),
        ({"hidden_sizes": "8;2"}, "hidden_sizes must be integers"),
        ({"latent_size": "8,2", "hidden_sizes": "8+4+2"}, "for each stochastic layer"),
        ({"latent_size": "0"}, "latent_size must be an integer of at least 1: received 0"),
        ({"posterior": "norml"}, "Unknown posterior: received 'norml'. Did you mean 'normal'"),
        ({"posterior": "normal+normal+normal"}, "one posterior, or one for each of 1 stochastic layers"),
        ({"network": "convolutoin"}, "Unknown network: received 'convolutoin'. Did you mean 'convolution'"),
        ({"network": "convolution,block=2"}, "Unknown setting of convolution: received 'block'. Did you mean 'blocks'"),
        ({"network": "perceptron,residual=2"}, "residual of perceptron must be a value of type bool: received 2"),
        ({"posterior": "full_normal,bounded=false"}, "bounded of full_normal must be a value of type bool"),
        (
            {"network": "nowhere:body"},
            "The network 'nowhere:body' cannot be had: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ({"network": "iwae_zoo:nothing"}, "'iwae_zoo' has no attribute 'nothing'"),
        ({"network": "iwae_zoo:presets"}, "must be a networks.bodies.Body: received <module"),
        ({"activation": "tahn"}, "tahn"),
        ({"activation": "threshold"}, "The activation 'threshold' takes more than a tensor"),
        ({"activation": "glu"}, "The activation 'glu' changes the number of units"),
        ({"prior": "flow"}, "Unknown prior: received 'flow'"),
        ({"prior": "coupling_flow", "latent_size": "5,1"}, "needs a latent of at least 2 dimensions: received 1"),
        ({"posterior": "coupling_flow", "latent_size": "1,5"}, "needs a latent of at least 2 dimensions: received 1"),
    ],
)
def test_errors_come_before_training(options, message):
    with pytest.raises(ValueError, match=message):
        training.Config(**options).resolved()


def test_networks_that_cannot_take_the_data_are_an_error_before_anything_is_written(tiny, tmp_path):
    config = training.Config(dataset=tiny, network="convolution", hidden_sizes="4,8")
    with pytest.raises(ValueError, match=r"sides of at least 4 for 2 scales .*received data of shape \(3, 3\)"):
        training.Run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_a_stacked_model_from_flags(tiny, tmp_path, no_annealing):
    flags = [f"--dataset={tiny}", "--preset=plane", "--latent_size=4,2", "--hidden_sizes=8+6", "--m=1", "--k=4"]
    flags += ["--posterior=full_normal", "--prior=mixture_of_normals", "--eval_samples=4", "--workdir=run"]
    flags += ["--eval_method=importance"]
    result = call(train, *flags, "--epochs=2", "--export_dir=served", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "served" / "1" / "saved_model.pb").exists()
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["latent_size"], config["hidden_sizes"]) == ("4,2", "8+6")
    # The folder holds this run, whatever JSON makes of it.
    training.Run(training.Config(**config), tmp_path / "run", resume=True)
