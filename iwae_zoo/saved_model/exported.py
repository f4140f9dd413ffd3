"""An exported model, asked for log p(x) as the model itself is."""

import pathlib

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import checked_seed, integer, look_up
from iwae_zoo._files import read_json
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.estimation import importance, likelihood, rows
from iwae_zoo.saved_model import versions

__all__ = ["CARD", "Exported"]

CARD = "model_card.json"


class Exported:
    """An exported model, loaded by its path alone.

    Args:
      path: folder of a version, or of the served model: then its largest version.

    Raises:
      ValueError: if there is no SavedModel, or it is none of ours.
    """

    def __init__(self, path):
        path = pathlib.Path(path)
        found = versions.of(path) if path.is_dir() else {}
        self.path = found[max(found)] if found else path
        if not (self.path / "saved_model.pb").is_file():
            raise ValueError(f"There is no SavedModel in {path}: neither saved_model.pb nor a version with one.")
        try:
            self._loaded = tf.saved_model.load(str(self.path))
        except (tf.errors.OpError, LookupError, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"The SavedModel in {self.path} is damaged: {reason}") from error
        self.signatures = self._loaded.signatures
        if "log_prob" not in self.signatures:
            known = ", ".join(sorted(self.signatures))
            raise ValueError(f"The SavedModel in {self.path} has no signature log_prob; it has {known}.")

    @property
    def card(self):
        """The model card: dict; raises ValueError if it is damaged."""
        return read_json(self.path / CARD)

    @property
    def data_shape(self):
        """Shape of one x."""
        return tuple(self.signatures["log_prob"].structured_input_signature[1]["x"].shape[1:])

    @tensor_float_32(False)
    def estimate_log_prob(self, x, num_samples=1000, seed=0, first_row=0, method=likelihood.IMPORTANCE):
        """As `likelihood.estimate_log_prob` of the model that was exported, with the same random numbers.

        Rows whose chains do not agree are not walked again along a longer path: an export has one, of its
        `num_temperatures`.

        The numbers depend on the particles of a chunk: where `num_samples` is above the model card's `particle_chunk`,
        they are those of `likelihood.estimate_log_prob` with that as its `chunk_size`. Of an encoder's distribution of
        one's own, of which fewer draws may be others than the first of many, they are so below it, too.

        Args:
          x: array [B, ...].
          num_samples: int; the model clamps it to its `max_num_samples`.
          seed: int, 0 <= seed < 2^31.
          first_row: int, index of the first example within a larger data set.
          method: as in `likelihood.estimate_log_prob`.

        Returns:
          `likelihood.Estimate`.

        Raises:
          ValueError: if x has another shape, a number is out of range, the method is unknown, the model cannot be
            annealed and has to be, or log weights are NaN for an x that is finite.
          MemoryError: if the device has no memory for what the export decodes at once.
        """
        integer("num_samples", num_samples)
        look_up(likelihood.METHODS, method, "method of estimating log p(x)")
        if "log_prob_annealed" not in self.signatures and method != likelihood.IMPORTANCE:
            if method == likelihood.ANNEALED:
                raise ValueError(
                    f"The SavedModel in {self.path} has no signature log_prob_annealed: z of its model cannot be "
                    "annealed, or it was exported before there was one. Ask with method='importance', or export again."
                )
            method = likelihood.IMPORTANCE
        x = np.asarray(x, np.float32)
        if x.shape[1:] != self.data_shape:
            raise ValueError(
                f"x must have shape [B, {', '.join(map(str, self.data_shape))}]: received {list(x.shape)}."
            )
        seeds = (rows.numbered(len(x), first_row).astype(np.int64) << 32) + checked_seed(seed)

        def ask(name, some, **inputs):
            try:
                answer = self.signatures[name](x=tf.constant(x[some]), seed=tf.constant(seeds[some]), **inputs)
            except tf.errors.ResourceExhaustedError:
                raise MemoryError(
                    f"The device is out of memory for {self.path}. Export the model again on this machine with "
                    "particle_chunk='auto' (--particle_chunk=auto), or for a smaller tile_rows."
                ) from None
            return {name: answer[name].numpy() for name in importance.OUTPUTS}

        everything = slice(None)
        sampled = ask("log_prob", everything, num_samples=tf.fill([len(x)], np.int32(min(num_samples, tf.int32.max))))
        rows.checked_answers(sampled["log_prob"])
        sampled = likelihood.Estimate.of_importance(**sampled)
        return likelihood.climb(sampled, lambda some: ask("log_prob_annealed", some), method)
