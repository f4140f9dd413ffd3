"""How the programs speak, and that the installed package has them."""

import gc
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import google.protobuf
import pytest
from inprocess import call

import iwae_zoo_console
from export import evaluate_main
from iwae_zoo import presets
from iwae_zoo.programs import evaluate, export, impute, train
from iwae_zoo_serving.programs import query, serve
from studies import (
    anomaly_main,
    discrete_latents_main,
    imputation_main,
    kinds_main,
    posterior_main,
    reproduce_main,
    samples_main,
    snr_slopes_main,
    tighter_bounds_main,
    train_presets_main,
    true_likelihood_main,
)

PROGRAMS = [train, evaluate, impute, export, evaluate_main, serve, query]
PROGRAMS += [
    anomaly_main,
    discrete_latents_main,
    imputation_main,
    kinds_main,
    posterior_main,
    reproduce_main,
    samples_main,
    snr_slopes_main,
    tighter_bounds_main,
    train_presets_main,
    true_likelihood_main,
]

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "version_0_1.keras"


@pytest.mark.parametrize(
    ("program", "flags", "message"),
    [
        (train, ["--objective=ivae"], "Unknown objective: received 'ivae'. Did you mean 'iwae'?"),
        (train, ["--objective=ciwae", "--beta=2"], "beta must be in [0, 1]: received 2.0"),
        (train, ["--objective=tvo", "--points=51"], "points must be an integer from 2 to 50: received 51."),
        (train, ["--estimator=ovis,gama=1"], "Unknown setting of ovis: received 'gama'. Did you mean 'gamma'?"),
        (train, ["--estimator=vimco", "--m=1", "--k=1"], "takes its baseline from the other particles of a group"),
        (train, ["--objective=rws", "--sleep=2"], "sleep must be in [0, 1]: received 2.0"),
        (train, ["--k=two"], "flag --k=two"),
        (
            train,
            ["--posterior=bernoulli"],
            "needs reparameterised particles, and those of a posterior 'bernoulli' are not",
        ),
        (
            train,
            ["--preset=sbn_8", "--prior=standard_normal"],
            "draws zeros and ones, and 'standard_normal' real numbers",
        ),
        (train, ["--obejctive=iwae"], "Unknown command line flag 'obejctive'. Did you mean: objective ?"),
        (train, ["miwae"], "unexpected arguments ['miwae']"),
        (train, ["--schedule=cosin"], "Did you mean 'cosine'?"),
        (
            train,
            ["--steps_per_execution=10", "--checkpoint_every=25"],
            "checkpoint_every must be a multiple of steps_per_execution=10: received 25.",
        ),
        (train, ["--strategy=mirored"], "Did you mean 'mirrored'?"),
        (train, ["--devices=gpu:9x2"], "GPUs on this machine: received devices='gpu:9x2'."),
        (train, ["--devices=gpu:1x"], "such as 'gpu:2', 'gpu:1x2' or 'cpu:4': received 'gpu:1x'."),
        (train, ["--stream_above=-1"], "stream_above must be at least 0 GiB: received -1.0."),
        (train, ["--data_on=devise"], "Unknown place for the data: received 'devise'. Did you mean 'device'?"),
        (train, ["--particle_chunk=most"], "flag --particle_chunk=most: must be a positive integer, or auto"),
        (train, ["--tensor_float_32=ja"], "flag --tensor_float_32=ja"),
        (train, ["--from_preset=small"], "Unknown preset with weights"),
        (train, ["--from_preset=digits_miwae", "--prior=coupling_flow"], "leave out prior='coupling_flow'"),
        (evaluate, [], "one of --model and --preset is needed: received neither."),
        (evaluate, ["--model=x", "--preset=digits_miwae"], "received --model=x, --preset=digits_miwae."),
        (evaluate, ["--preset=digits_miwea"], "Did you mean 'digits_miwae'?"),
        (evaluate, ["--model=nowhere.keras"], "There is no model file 'nowhere.keras'"),
        (evaluate, [f"--model={GOLDEN}", "--output=nowhere/x.json"], "There is no folder for nowhere/x.json"),
        (evaluate, ["--model=x", "--split=trian"], "value should be one of <train|validation|test>"),
        (evaluate, ["--model=x", "--particle_chunk=0"], "flag --particle_chunk=0: must be a positive integer, or auto"),
        (evaluate, [f"--model={GOLDEN}", "--tile_rows=24"], "tile_rows must be 1 or a multiple of 48"),
        (evaluate_main, ["--saved_model=nowhere"], "There is no SavedModel in nowhere"),
        (evaluate_main, ["--saved_model=x", "--output=no/x.csv"], "There is no folder for no/x.csv"),
        (impute, ["--model=x", "--input=a.txt", "--output=b.csv"], "--input=a.txt must end in .csv, .parquet or .npy"),
        (impute, ["--model=no.keras", "--input=a.csv", "--output=b.csv"], "There is no model file 'no.keras'"),
        (impute, ["--input=a.csv", "--output=b.csv"], "one of --model and --preset is needed: received neither."),
        (impute, ["--preset=digits_miwae", "--input=a.npy", "--output=b.npz"], "The model takes no missing values"),
        (impute, [f"--model={GOLDEN}", "--input=a.npy", "--output=b.npz"], "The model takes no missing values"),
        (
            query,
            ["--dataset=digits", "--input=x.npy"],
            "one of --input=x.npy, --dataset=digits and --csv=table.csv is needed",
        ),
        (evaluate, ["--preset=mnist_sbn", "--ais=2"], "Annealing moves z along gradients in R^D"),
        (evaluate, ["--preset=digits_miwae", "--sandwich=2", "--num_chains=0"], "num_chains must be an integer"),
        (serve, [], "flag --model_base_path=None"),
        (serve, ["--model_base_path=x", "--port=65536"], "flag --port=65536"),
        (query, ["--protocol=soap"], "value should be one of <rest|grpc>"),
        (tighter_bounds_main, ["--objectives=vea"], "unknown objectives ['vea']"),
        (snr_slopes_main, ["--workdir=/proc/nowhere/x"], "No such file or directory: '/proc/nowhere"),
        (snr_slopes_main, [f"--seed={2**31}"], "flag --seed=2147483648"),
        (anomaly_main, ["--problems=digits_10"], "Unknown problem: received 'digits_10'."),
        (anomaly_main, ["--rates=100"], "A rate must be a whole number from 0 to 99, in percent: received '100'."),
        (anomaly_main, ["--objective=piwea"], "Did you mean 'piwae'?"),
        (imputation_main, ["--tables="], "flag --tables=[]: at least one is needed"),
        (imputation_main, ["--tables=wein"], "Did you mean 'wine'?"),
        (imputation_main, ["--rates=0.3"], "A rate must be a whole number from 1 to 99, in percent: received '0.3'."),
        (imputation_main, ["--objectives=piwea"], "Did you mean 'piwae'?"),
        (imputation_main, ["--peers=tree"], "Did you mean 'trees'?"),
        (export, ["--workdir=nowhere", "--export_dir=models"], "nowhere holds no trained model"),
        (export, ["--export_dir=models"], "one of --workdir and --preset is needed: received neither."),
        (export, ["--preset=digits_miwae", "--export_dir=models", "--tile_rows=8"], "multiple of 48, for answers that"),
        (export, ["--preset=small", "--export_dir=models"], "Unknown preset with weights"),
        (reproduce_main, ["--tables=burdo"], "Did you mean 'burda'?"),
        (reproduce_main, ["--rows=ciwae_50"], "Did you mean 'ciwae_5'?"),
        (train_presets_main, ["--preset=small", "--output=x"], "Unknown preset with weights: received 'small'"),
        (train_presets_main, ["--output=/dev/null"], "--output is a folder: received /dev/null, which is none."),
        (imputation_main, ["--objectives=", "--peers="], "At least one of --objectives and --peers is needed"),
        (imputation_main, ["--rates="], "flag --rates=[]: at least one is needed"),
        (imputation_main, ["--mechanisms="], "flag --mechanisms=[]: at least one is needed"),
        (anomaly_main, ["--rates="], "flag --rates=[]: at least one is needed"),
        (train_presets_main, ["--evaluate"], "--evaluate takes --preset and writes its card in the package: received"),
    ],
)
def test_a_wrong_flag_is_one_line(program, flags, message, tmp_path):
    ended = call(program, *flags, cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.startswith("the_program: ")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_help_lists_every_flag(program, tmp_path):
    shown = call(program, "--help", cwd=tmp_path).stdout
    for flag in program._FLAGS:
        assert f"--{'[no]' if program._FLAGS[flag].boolean else ''}{flag}" in shown or len(flag) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("given", "expected"), [(None, "true"), ("false", "false")])
def test_programs_share_a_gpu_unless_the_environment_says_otherwise(given, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", given or "")
    if given is None:
        monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    # TensorFlow has set up its devices long before, and there is no GPU.
    assert call(train, "--list_presets", cwd=tmp_path).returncode == 0
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == expected
    code = "import os; print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == expected  # Of the processes that it starts, too.


@pytest.mark.parametrize("argument", ["-v", "--v", "--verbose", "--verbose=true", "-v=1"])
def test_who_asks_for_tensorflows_own_messages(argument, monkeypatch):
    for arguments, asks in (([argument], True), (["--verbosity", "--v8", "--noverbose", "--verbose=false"], False)):
        monkeypatch.setattr(sys, "argv", ["train_main.py", *arguments])
        assert iwae_zoo_console.is_verbose() == asks


def test_a_file_of_flags_that_is_no_text(tmp_path):
    (tmp_path / "flags").write_bytes(b"--workdir=\xe9")
    ended = call(train, "--flagfile=flags", cwd=tmp_path)
    assert ended.returncode == 1
    assert "can't decode byte 0xe9" in ended.stderr and ended.stderr.count("\n") == 1


def test_help_for_somebody_who_has_read_enough():
    """As with `| head`: a pipe that nobody reads any more."""
    reads, writes = os.pipe()
    os.close(reads)
    code = "import sys, iwae_zoo_console; sys.argv = ['iwae-zoo', 'query', '--help']; iwae_zoo_console.main()"
    result = subprocess.run([sys.executable, "-c", code], stdout=writes, stderr=subprocess.PIPE, check=False)
    os.close(writes)
    assert (result.returncode, result.stderr) == (0, b"")


def test_unknown_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["iwae-zoo", "tarin"])
    with pytest.raises(
        SystemExit, match="unknown program 'tarin'. Known: train, evaluate, impute, export, serve, query"
    ):
        iwae_zoo_console.main()
    for flags in (["--help"], []):
        monkeypatch.setattr(sys, "argv", ["iwae-zoo", *flags])
        iwae_zoo_console.main()
        shown = capsys.readouterr().out
        assert all(f"  {name} " in shown for name in iwae_zoo_console.PROGRAMS)


@pytest.mark.parametrize(
    ("program", "missing", "error", "message"),
    [
        ("serve", "aiohttp", SystemExit, r"^serve: aiohttp is not installed: pip install 'iwae_zoo\[serving\]'$"),
        ("query", "tqdm", SystemExit, r"^query: tqdm is not installed: pip install 'iwae_zoo\[serving\]'$"),
        ("query", "google.protobuf.json_format", ModuleNotFoundError, "json_format"),  # Broken, and no extra left out.
    ],
)
def test_a_program_without_its_extra(program, missing, error, message, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("iwae_zoo_serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(google.protobuf, "json_format")
    monkeypatch.setitem(sys.modules, missing, None)  # As if it were not installed.
    with pytest.raises(error, match=message):
        iwae_zoo_console.start(program, program, [])


def test_an_import_is_silenced_unless_it_fails_or_somebody_asks(capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_main.py"])
    with pytest.raises(ZeroDivisionError), iwae_zoo_console.quiet():
        os.write(2, b"what a library says")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "what a library says"
    with iwae_zoo_console.quiet():
        os.write(2, b"what a library says")
    assert capfd.readouterr().err == ""
    with pytest.raises(SystemExit) as ended, iwae_zoo_console.quiet():  # Ctrl-C in the first seconds.
        os.write(2, b"what a library says")
        raise KeyboardInterrupt
    assert ended.value.code == 130 and capfd.readouterr().err == ""
    monkeypatch.setattr(sys, "argv", ["train_main.py", "-v"])
    with iwae_zoo_console.quiet():
        os.write(2, b"what a library says")
    assert capfd.readouterr().err == "what a library says"


def test_nothing_is_looked_for_while_tensorflow_is_imported(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    with iwae_zoo_console.quiet():  # It is there already.
        assert gc.isenabled()
    assert not frozen
    monkeypatch.delitem(sys.modules, "tensorflow")
    with pytest.raises(ZeroDivisionError), iwae_zoo_console.quiet():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled() and frozen == [False]


def test_interrupted(monkeypatch, tmp_path):
    """A program that has nothing to say about it ends without a traceback; others say what is kept."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(query, "_rows", interrupt)
    monkeypatch.setattr(samples_main, "load", interrupt)
    ended = call(query, "--input=x.npy", cwd=tmp_path)
    assert ended == (130, "", "")
    ended = call(samples_main, "--workdirs=x", "--output=x.png", cwd=tmp_path)
    assert ended == (130, "\nthe_program: interrupted. The same command begins anew.\n", "")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as its wheel has it, without the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # A build leaves files behind.
    for name in ("iwae_zoo", "iwae_zoo_serving"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.py", "pyproject.toml", "iwae_zoo_console.py"):
        shutil.copy(ROOT / name, source)
    build = "import setuptools.build_meta as backend; backend.build_wheel('..'); backend.build_sdist('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", f"--target={folder / 'site'}", wheel], check=True)
    return folder / "site"


FROM_THE_WHEEL = """
import contextlib, importlib, io, os, pathlib, runpy, signal, sys, threading, time, urllib.request

program, *flags = sys.argv[1:]
dataset = flags[1]
for sys.argv in ([program, "train", "--obejctive=iwae"], [program, *flags]):
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code:
            print(end.code, file=sys.stderr)

import numpy as np

import iwae_zoo
import iwae_zoo_console
import iwae_zoo_serving

for package in (iwae_zoo, iwae_zoo_console, iwae_zoo_serving):
    assert pathlib.Path(package.__file__).is_relative_to(pathlib.Path(program).parents[1])
for name in sys.stdin.read().split():
    model = iwae_zoo.ImportanceWeightedAutoencoder.from_preset(name)
    x = model(np.zeros((1, *model.data_shape), np.float32))
    print("loaded", name, model.count_params(), bool(np.isfinite(x).all()))

(run,) = pathlib.Path("runs").iterdir()
iwae_zoo.annealing.is_possible = lambda _: False  # What is exported takes half as long.
for flags in (
    ["evaluate", f"--model={run}/model.keras", dataset, "--examples=3", "--num_samples=64", "--method=importance"],
    ["export", f"--workdir={run}", "--export_dir=models"],
):
    sys.argv[1:] = flags
    iwae_zoo_console.main()
importlib.import_module(iwae_zoo_console.PROGRAMS["impute"].module)

shown = io.StringIO()

def ask():
    try:
        while "REST" not in shown.getvalue():
            time.sleep(0.05)
        address = shown.getvalue().split()[-1]
        body = b'{"signature_name": "encode", "instances": [[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]}'
        with urllib.request.urlopen(address + ":predict", body) as answer:
            print("answered", answer.read().decode())
        np.save("x.npy", np.zeros((3, 3, 3), np.float32))
        sys.argv[1:] = ["query", "--server=" + address.split("/")[2], "--model_name=tiny", "--input=x.npy"]
        iwae_zoo_console.main()
    except SystemExit as end:
        print(end.code, file=sys.stderr)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

client = threading.Thread(target=ask, daemon=True)
client.start()
sys.argv[1:] = ["serve", "--model_base_path=models", "--model_name=tiny", "--port=0", "--rest_api_port=0"]
with contextlib.redirect_stdout(shown):
    iwae_zoo_console.main()
client.join()
print(shown.getvalue())
"""


@pytest.mark.slow
def test_the_wheel_trains_exports_serves_and_has_the_weights(installed, tiny, tmp_path):
    """And says nothing on stderr but what is wrong with a flag, and nothing but plain lines on stdout."""
    made = [name for name in presets.trained.names() if presets.trained.is_made(name)]
    tried = made[:: len(made) - 1]  # Of the others the weights are there.
    flags = [f"--dataset={tiny}", "--preset=small", "--hidden_sizes=8", "--epochs=2", "--eval_samples=64"]
    flags += ["--eval_method=importance"]
    result = subprocess.run(
        [sys.executable, "-c", FROM_THE_WHEEL, str(installed / "bin" / "iwae-zoo"), "train", *flags],
        cwd=tmp_path,
        input=" ".join(tried).encode(),
        capture_output=True,
        timeout=300,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(installed), "HOME": str(tmp_path)},
    )
    shown = result.stdout.decode()
    assert result.returncode == 0, result.stderr
    wrong, *said = result.stderr.decode().splitlines()
    assert wrong == "iwae-zoo train: Unknown command line flag 'obejctive'. Did you mean: objective ?"
    said = [line for line in said if not line.startswith("warning: log p(x)")]
    assert len(said) == 1 and said[0].endswith("Serving version 1 of tiny")
    assert not set(shown) & set("\r\b\x1b")
    data, *epochs = shown.splitlines()[:3]
    assert data.startswith("tiny: 80 / 10 / 10 examples of 3 x 3")
    assert [line.split(",")[0] for line in epochs] == ["epoch 1 of 2", "epoch 2 of 2"]
    for text in ("IWAE bound at 64 particles", "untrained model", "independent pixels (Bernoulli)", "-KL(Q || P)"):
        assert text in shown
    run = tmp_path / "runs" / "tiny-iwae-m8-k8-preset_small-hidden_sizes_8-epochs_2-seed0"
    assert (run / "evaluation.json").exists()
    assert (tmp_path / "models" / "1" / "saved_model.pb").exists()
    loaded = [line for line in shown.splitlines() if line.startswith("loaded ")]
    assert loaded == [f"loaded {name} {presets.card(name)['weights']['count']} True" for name in tried]
    weights = {path.name for path in (installed / "iwae_zoo" / "presets" / "weights").iterdir()}
    assert {f"{name}.{end}" for name in made for end in ("json", "weights.h5")} <= weights
    assert 'answered {"predictions":[{"mean":[' in shown
    assert "3 rows of elbo, ess, in_support, log_prob, num_samples, pareto_k, standard_error in results.csv" in shown
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 4
    (sdist,) = installed.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"iwae_zoo/presets/weights/{name}.{end}" for name in made for end in ("json", "weights.h5")} <= names
    assert "iwae_zoo_serving/programs/serve.py" in names
