"""The table of presets: names of networks and heads with their sizes, and settings. Data, not code."""

import dataclasses
import fnmatch
from typing import Any

from iwae_zoo._checks import integer, look_up

__all__ = ["TABLE", "Preset", "default", "get", "names"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """An architecture, and the settings it is usually trained with.

    Attributes:
      summary: str, what it is, in a few words.
      kind: the kind of data that it was made for, as `data.kinds` has it; others go where the likelihood allows them.
      data_shape: the shape of x that it was made for.
      latent_size: int, D; of stacked stochastic layers one for each, from x upwards.
      hidden_sizes: of the encoder's body, as `networks.bodies` has it; the decoder mirrors them. Of stacked layers one
        such tuple for each, or one for all.
      activation: of the hidden layers.
      batch_size: int.
      learning_rate: of Adam, for both optimizers.
      epochs: int, a default for a first look; papers train longer.
      schedule: how the learning rate changes, as `training.schedules` has it.
      network: name of a body, as `networks.bodies` has it.
      likelihood: name of a likelihood; None for the default of the data's kind.
      posterior: name of a posterior, with settings where it has some; of stacked layers one for all, or one for each
        from x upwards with + between them, such as "normal+categorical,classes=10".
      prior: name of a prior, of the topmost layer, with settings where it has some; None for that of its posterior.
      objective: name of the objective that it is trained on where none is chosen.
      m: int, groups of particles where their number is not chosen, and `k`, particles in a group.
      paper: where it comes from; None for here.
      reached: what it reached, and by which flags; None where nobody has measured it.
      data: names of the data sets that it is the default for, or patterns of them, such as "*.csv".
      training: of a preset that comes with weights: the fields of `training.Config` that they were trained with, where
        they are not those above or the defaults. `presets.trained` finds the weights and their card by its name.
    """

    summary: str
    kind: str
    data_shape: tuple[int, ...]
    latent_size: int | tuple[int, ...]
    hidden_sizes: tuple[Any, ...]
    activation: str = "tanh"
    batch_size: int
    learning_rate: float = 1e-3
    epochs: int
    schedule: str = "constant"
    network: str = "perceptron"
    likelihood: str | None = None
    posterior: str = "normal"
    prior: str | None = None
    objective: str = "iwae"
    m: int = 8
    k: int = 8
    paper: str | None = None
    reached: str | None = None
    data: tuple[str, ...] = ()
    training: dict[str, Any] | None = None

    @property
    def posteriors(self):
        """Names of the posteriors of the stochastic layers from x upwards.

        Raises:
          ValueError: if there is neither one for all nor one for each.
        """
        names, layers = self.posterior.split("+"), len(self.layers)
        if len(names) not in (1, layers):
            raise ValueError(
                f"There must be one posterior, or one for each of {layers} stochastic layers with + between them: "
                f"received {self.posterior!r}."
            )
        return names if len(names) == layers else names * layers

    @property
    def layers(self):
        """The stochastic layers from x upwards: a list of pairs (latent_size, hidden_sizes).

        Raises:
          ValueError: if there are no layers, a size is not a positive integer, or the two do not match.

        #### Examples
        >>> get("burda_2").layers
        [(100, (200, 200)), (50, (100, 100))]
        """
        sizes = self.latent_size if isinstance(self.latent_size, tuple) else (self.latent_size,)
        if isinstance(self.hidden_sizes, int):
            raise ValueError(f"hidden_sizes must be a tuple, such as (100,): received {self.hidden_sizes!r}.")
        nested = {isinstance(hidden, tuple) for hidden in self.hidden_sizes}
        hidden_sizes = self.hidden_sizes if True in nested else (self.hidden_sizes,) * len(sizes)
        if not sizes or len(sizes) != len(hidden_sizes) or len(nested) > 1:
            raise ValueError(
                "There must be a latent_size and hidden_sizes for each stochastic layer: received "
                f"latent_size={self.latent_size}, hidden_sizes={self.hidden_sizes}."
            )
        return [
            (integer("latent_size", size), tuple(integer("hidden_sizes", units) for units in hidden))
            for size, hidden in zip(sizes, hidden_sizes, strict=True)
        ]


_SMALL = Preset(
    summary="8x8 digits, in about a minute on two CPU cores",
    kind="binary",
    data_shape=(8, 8, 1),
    latent_size=16,
    hidden_sizes=(64, 64),
    batch_size=32,
    learning_rate=2e-3,
    epochs=150,
)
_BELIEF_NETWORK: dict[str, Any] = {"posterior": "bernoulli", "hidden_sizes": (), "objective": "rws"}
_ONE_LAYER = Preset(
    summary="MNIST, one stochastic layer",
    kind="binary",
    data_shape=(28, 28, 1),
    latent_size=50,
    hidden_sizes=(200, 200),
    batch_size=20,
    epochs=20,
    paper="Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519",
)
_TWO_LAYERS = dataclasses.replace(
    _ONE_LAYER,
    summary="MNIST, two stochastic layers",
    latent_size=(100, 50),
    hidden_sizes=((200, 200), (100, 100)),
)
# In place of a paper's settings, where there is half an hour and not days.
_SHORT: dict[str, Any] = {"batch_size": 100, "learning_rate": 2e-3, "schedule": "cosine", "paper": None}

TABLE = {
    "small": dataclasses.replace(
        _SMALL, reached="digits, --objective=dreg --m=1: log p(x) -22.36 (0.21)", data=("digits",)
    ),
    "plane": dataclasses.replace(
        _SMALL,
        summary="8x8 digits, with a latent that can be drawn",
        latent_size=2,
        reached="digits, --objective=dreg --m=1: log p(x) -23.02 (0.22)",
    ),
    "flows": dataclasses.replace(
        _SMALL,
        summary="8x8 digits, coupling flows for posterior and prior",
        posterior="coupling_flow",
        prior="coupling_flow",
        reached="digits, --objective=dreg --m=1: log p(x) -22.15 (0.22)",
    ),
    "conv_8": dataclasses.replace(
        _SMALL,
        summary="8x8 digits, convolutions",
        network="convolution",
        hidden_sizes=(16, 32),
        activation="elu",
        epochs=60,
        reached="digits, --objective=dreg --m=1: log p(x) -22.25 (0.21)",
    ),
    "sbn_8": dataclasses.replace(
        _SMALL,
        summary="8x8 digits, a sigmoid belief network of two layers",
        latent_size=(32, 16),
        reached="digits, --m=1 --k=64: log p(x) -23.10 (0.20)",
        **_BELIEF_NETWORK,
    ),
    "bytes_8": dataclasses.replace(
        _SMALL,
        summary="8x8 grey images as bytes",
        kind="byte",
        likelihood="discretized_logistic_mixture",
        reached="digits as bytes, --objective=dreg --m=1: 3.55 bits per dimension",
    ),
    "rainforth": dataclasses.replace(
        _ONE_LAYER,
        summary="MNIST, what the article and its studies train",
        paper="Rainforth et al. 2018, arXiv 1802.04537",
        reached="MNIST, half an hour (248 epochs) with modern's settings, but tanh: log p(x) -85.88 (0.23), annealed",
    ),
    "burda_1": _ONE_LAYER,
    "burda_2": dataclasses.replace(
        _TWO_LAYERS,
        reached="MNIST, half an hour (178 epochs) with modern's settings, but tanh: log p(x) -84.67 (0.23), annealed",
    ),
    "faithful": dataclasses.replace(
        _ONE_LAYER,
        summary="burda_1 with the paper's schedule: days on two CPU cores",
        epochs=3280,
        schedule="burda",
        reached="not trained here; --dataset=mnist --objective=iwae --m=1 --k=50 is the paper's",
    ),
    "modern": dataclasses.replace(
        _TWO_LAYERS,
        summary="MNIST, half an hour of two CPU cores: burda_2 with elu and large steps",
        activation="elu",
        epochs=200,
        objective="dreg",
        m=1,
        **_SHORT,
        reached="MNIST, half an hour: log p(x) -83.42 (0.22), annealed",
        data=("mnist",),
    ),
    "sbn": dataclasses.replace(
        _ONE_LAYER,
        summary="MNIST, a sigmoid belief network of three layers",
        latent_size=(200, 200, 200),
        batch_size=24,
        paper="Mnih, Rezende 2016, arXiv 1602.06725",
        **_BELIEF_NETWORK,
    ),
    "conv_28": dataclasses.replace(
        _ONE_LAYER,
        summary="28x28 images, convolutions",
        network="convolution",
        hidden_sizes=(16, 32),
        activation="elu",
        epochs=25,
        **_SHORT,
        reached="MNIST, half an hour of --objective=dreg --m=1 --epochs=32: log p(x) -83.53 (0.22), annealed",
    ),
    "grey_28": dataclasses.replace(
        _ONE_LAYER,
        summary="28x28 images as intensities (--binarize=none)",
        kind="intensity",
        likelihood="continuous_bernoulli",
        batch_size=100,
        paper="Loaiza-Ganem, Cunningham 2019, arXiv 1907.06845",
    ),
    "conv_32_bytes": Preset(
        summary="32x32 images in colour, convolutions",
        kind="byte",
        data_shape=(32, 32, 3),
        latent_size=64,
        hidden_sizes=(32, 64),
        activation="elu",
        batch_size=50,
        epochs=20,
        network="convolution",
        likelihood="discretized_logistic_mixture,components=5",
        paper="the likelihood: Salimans et al. 2017, arXiv 1701.05517",
        reached="photographs of studies/kinds_main.py, --objective=dreg --m=1 --k=2 --schedule=cosine "
        "--learning_rate=2e-3: 4.34 bits a dimension; PNG: 3.82",
    ),
    "real_small": Preset(
        summary="tables of real numbers",
        kind="real",
        data_shape=(30,),
        latent_size=8,
        hidden_sizes=(64, 64),
        batch_size=32,
        learning_rate=2e-3,
        epochs=100,
        reached="breast cancer (30 columns), --objective=dreg --m=1: log p(x) 36.1 (1.7); one full Normal: 28.6",
    ),
    "table": Preset(
        summary="tables with columns of any kind, with or without missing values",
        kind="table",
        data_shape=(30,),
        latent_size=10,
        hidden_sizes=(128, 128),
        activation="elu",
        batch_size=64,
        learning_rate=2e-3,
        epochs=200,
        schedule="cosine",
        paper="with holes: Mattei, Frellsen 2019, arXiv 1812.02633",
        data=("*.csv", "*.parquet", "breast_cancer"),
    ),
    "counts": Preset(
        summary="tables of counts, such as single cells by genes",
        kind="count",
        data_shape=(200,),
        latent_size=10,
        hidden_sizes=(128,),
        batch_size=64,
        epochs=50,
        reached="counts of studies/kinds_main.py, --objective=dreg --m=1: log p(x) -115.6 (0.6); the truth: -111.7",
    ),
}


def _trained(name, summary, training, **fields):
    """The row of a preset with weights: the networks of another row, and what they were trained on."""
    fields |= {field: training[field] for field in ("objective", "m", "k") if field in training}
    fields |= {"summary": summary, "training": training}
    return dataclasses.replace(TABLE[name], reached=None, data=(), **fields)


# Those with weights; studies/train_presets_main.py makes them.
TABLE |= {
    "digits_miwae": _trained("small", "8x8 digits, MIWAE(8, 8)", {"dataset": "digits", "objective": "miwae"}),
    "digits_bytes": _trained(
        "bytes_8",
        "8x8 digits as bytes, DReG",
        {"dataset": "digits", "kind": "byte", "objective": "dreg", "m": 1},
        epochs=60,
        schedule="cosine",
    ),
    "breast_cancer_table": _trained(
        "table",
        "30 measurements of a tumour, any of them missing",
        {"dataset": "breast_cancer", "missing": 0.2, "objective": "iwae", "m": 1, "k": 20},
    ),
    "mnist_piwae": _trained(
        "rainforth",
        "MNIST, one stochastic layer, PIWAE(8, 8)",
        # Most epochs with few particles: 64 take six times as long.
        {"dataset": "mnist", "objective": "piwae", "particle_schedule": "2x4:0.6,4x8:0.2"},
        **{**_SHORT, "epochs": 240, "activation": "elu"},
    ),
    "mnist_dreg": _trained(
        "rainforth",
        "MNIST, one stochastic layer, DReG with 8 particles",
        {"dataset": "mnist", "objective": "dreg", "m": 1},
        **{**_SHORT, "epochs": 600, "activation": "elu"},
    ),
    "mnist_burda_2": _trained(
        "burda_2",
        "MNIST, two stochastic layers, DReG with 8 particles",
        {"dataset": "mnist", "objective": "dreg", "m": 1},
        **{**_SHORT, "epochs": 360, "activation": "elu"},
    ),
    "mnist_sbn": _trained(
        "sbn",
        "MNIST, three layers of bits, VIMCO with 8 particles",
        {"dataset": "mnist", "objective": "vimco", "m": 1},
        epochs=240,
        schedule="cosine",
    ),
}
_DEFAULT = "rainforth"


def names():
    """Every registered name."""
    return tuple(TABLE)


def get(name, **fields):
    """Returns a `Preset` by name.

    Args:
      name: one of `names()`.
      **fields: of the `Preset`, in place of its own where they are not None.

    Raises:
      ValueError: on an unknown name.
    """
    chosen = {field: value for field, value in fields.items() if value is not None}
    return dataclasses.replace(look_up(TABLE, name, "preset"), **chosen)


def default(dataset):
    """Name of the preset that a data set gets if none is chosen."""
    for name, preset in TABLE.items():
        if any(fnmatch.fnmatchcase(str(dataset), pattern) for pattern in preset.data):
            return name
    return _DEFAULT
