"""Is the encoder still learning, and is the latent space used?

Gradient signal-to-noise ratios (`snr`), active units and the parts of the KL term (`latent`), all in one dict, and a
callback that adds them to the epochs' logs. The gap between the bounds, -KL(Q || P) and the ESS are those of
`evaluation`. On its own, `thermodynamic_bracket` of log p(x).
"""

import warnings

import keras

from iwae_zoo._checks import checked_seed, integer
from iwae_zoo.estimation import evaluation
from iwae_zoo.estimation.bracket import Bracket, thermodynamic_bracket
from iwae_zoo.estimation.latent import ACTIVE_VARIANCE, LatentUse, latent_use
from iwae_zoo.estimation.snr import LEAST_REPEATS, GradientSNR, SideSNR, gradient_snr
from iwae_zoo.model import examples

__all__ = [
    "ACTIVE_VARIANCE",
    "Bracket",
    "Diagnostics",
    "GradientSNR",
    "LatentUse",
    "SideSNR",
    "gradient_snr",
    "latent_use",
    "summarize",
    "thermodynamic_bracket",
]


def summarize(model, x, num_repeats=50, batch_size=20, num_samples=1000, seed=0):
    """All diagnostics as one flat dict of numbers, for logs.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...].
      num_repeats: int, gradients for the SNR, at least 10.
      batch_size: int, number of examples, the first ones, whose gradient is looked at.
      num_samples: int, particles per example for log p(x).
      seed: int.

    Returns:
      dict of floats: for both networks the median SNR and the DSNR; of `LatentUse` active_units, of stacked layers also
      active_units_1, active_units_2 and so on, kl, mutual_information and aggregate_kl; bound_gap, the bound at M K
      particles minus the ELBO, nats; and negative_kl, importance_ess and num_untrusted of `evaluation.Evaluation`.

    Raises:
      ValueError: as `gradient_snr` and `latent_use`.
    """
    snr = gradient_snr(model, x[: integer("batch_size", batch_size, 1)], num_repeats, seed)
    use = latent_use(model, x, seed=seed)
    by_layer = {f"active_units_{layer}": float(count) for layer, count in enumerate(use.active_by_layer, 1)}
    with warnings.catch_warnings():
        # Their number is in the answer.
        warnings.filterwarnings("ignore", message=r"log p\(x\)", category=UserWarning)
        values = evaluation.evaluate(model, x, num_samples, seed, method="importance", verbose=0)
    return {
        "encoder_snr": snr.encoder.median,
        "encoder_dsnr": snr.encoder.dsnr,
        "decoder_snr": snr.decoder.median,
        "decoder_dsnr": snr.decoder.dsnr,
        "active_units": float(use.active_units),
        **({} if len(use.active_by_layer) == 1 else by_layer),
        "kl": use.kl,
        "mutual_information": use.mutual_information,
        "aggregate_kl": use.aggregate_kl,
        "bound_gap": values.iwae_bound - values.elbo,
        "negative_kl": values.negative_kl,
        "importance_ess": values.importance_ess,
        "num_untrusted": float(values.num_untrusted),
    }


class Diagnostics(keras.callbacks.Callback):
    """Adds `summarize`, with the prefix "diagnostics_", to the logs of every so many epochs.

    It must come before the callbacks that are to see the numbers, such as TensorBoard: Keras hands one dict to all of
    them in turn. Examples and noise are the same each time, so that the epochs can be compared.

    Args:
      x: array [N, ...], some tens or hundreds of examples.
      every: int, number of epochs between two looks; the first is at the end of epoch `every`.
      num_repeats: int, of `summarize`, as are those that follow.
      batch_size: int.
      num_samples: int.
      seed: int.

    Raises:
      ValueError: on a number out of range, or, when training begins, an x that does not fit the model.
    """

    prefix = "diagnostics_"

    def __init__(self, x, every=1, *, num_repeats=50, batch_size=20, num_samples=1000, seed=0):
        super().__init__()
        self.x = x
        self.every = integer("every", every, 1)
        self.options = {
            "num_repeats": integer("num_repeats", num_repeats, LEAST_REPEATS),
            "batch_size": integer("batch_size", batch_size, 1),
            "num_samples": integer("num_samples", num_samples, 1),
            "seed": checked_seed(seed),
        }

    def on_train_begin(self, logs=None):
        examples.some(self.model, self.x)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None and (epoch + 1) % self.every == 0:
            summary = summarize(self.model, self.x, **self.options)
            logs.update({self.prefix + name: value for name, value in summary.items()})
