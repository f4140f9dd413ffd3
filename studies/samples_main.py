"""What trained models draw, beside the data, in one figure: the runs of several kinds of data side by side.

    python studies/samples_main.py --workdirs=runs/mnist,runs/counts --output=runs/samples.png

Each work directory of `train_main.py` gives one panel: of images the data, means of p(x | z) for z from the prior, and
draws of x; of counts the variance of each column against its mean; of other tables the two columns that vary most.
"""

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags
from matplotlib.backend_bases import FigureCanvasBase

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import data, figures, training
    from iwae_zoo._files import load_model
    from iwae_zoo.distributions import likelihoods
    from iwae_zoo.training import pictures
    from studies import cells

_FLAGS = console.flag_values()
_WORKDIRS = flags.DEFINE_list("workdirs", None, "Work directories of train_main.py.", flag_values=_FLAGS)
_OUTPUT = flags.DEFINE_string("output", "runs/samples.png", "The figure; a PNG without an ending.", flag_values=_FLAGS)
flags.register_validator(
    _OUTPUT,
    lambda path: pathlib.Path(path).suffix[1:].lower() in {"", *FigureCanvasBase.get_supported_filetypes()},
    "must end as a picture does, such as in .png, .pdf or .svg",
    flag_values=_FLAGS,
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0, flag_values=_FLAGS)
flags.register_validator(_WORKDIRS, bool, "at least one is needed", flag_values=_FLAGS)


def load(workdir):
    """A run's model, its data set, and its configuration as a dict."""
    config = training.read_config(workdir / "config.json")
    model = load_model(workdir / "model.keras")
    known = likelihoods.columns(model.decoder) or None  # Of a run from a preset, the preset's.
    settings = training.data_settings(config, config["dataset"], columns=known)
    return model, data.load(config["dataset"], config["data_dir"], **settings), config


def main(name):
    """Draws the figure."""
    panels = {}
    with cells.errors_in_one_line(name, goes_on=False):
        console.check_writable(_OUTPUT.value)
        for workdir in map(pathlib.Path, _WORKDIRS.value or []):
            model, dataset, config = load(workdir)
            title = f"{dataset.name}, {config['preset'] or workdir.name}"
            title = f"{title}, {workdir}" if title in panels else title
            panels[title] = pictures.panel(model, dataset.evaluation_array("test"), _SEED.value)
        figures.write(figures.side_by_side(panels, "Test data, and what models draw"), _OUTPUT.value)
    print(f"The figure is {_OUTPUT.value}.")


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("samples_main", sys.argv[1:])
