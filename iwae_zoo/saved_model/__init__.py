"""Exporting: a trained model as a SavedModel that answers log p(x) without Python, Keras or TensorFlow Probability.

Every signature works row by row: each input has a leading batch axis, and a row's answer depends on that row alone,
bit for bit, because each row is computed by itself in tensors of the same shapes. Randomness is stateless, from the
row's own seed. Memory is bounded by the chunk of particles, whatever a request asks for. With `tile_rows`, which is
chosen at export, every signature that weighs particles computes a tile of rows at once, for the same promise.

    signature                  inputs                outputs, per row
    serving_default            x                     log_prob, standard_error, ess, pareto_k, elbo, in_support,
                                                     num_samples
    log_prob                   x, num_samples, seed  the same
    log_prob_annealed          x, seed               the same, and method: by annealing
    encode                     x                     mean and stddev of q(z | x)
    posterior_sample           x, num_samples, seed  z, by sampling-importance-resampling, and its ess
    posterior_sample_annealed  x, seed               z, the end of an annealed chain, and the chains' ess
    reconstruct                x                     mean of p(x | z) at the mean of q(z | x), or at the most probable z
                                                     where it is discrete
    decode                     z                     mean of p(x | z)
    sample                     seed                  x, drawn from the model, and the mean of its p(x | z)
    impute                     x, num_samples, seed  of models that take missing values, NaN: mean and stddev of what is
                                                     missing given the rest, a draw, the point to put there and its
                                                     probability if it is a class; log_prob of the rest, and as above
"""

from iwae_zoo.saved_model.exported import CARD, Exported
from iwae_zoo.saved_model.exporting import export, export_run

__all__ = ["CARD", "Exported", "export", "export_run"]
