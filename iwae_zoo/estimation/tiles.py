"""How many rows are computed at once: a tile of fixed shape, rows x particles.

One row at a time keeps a few cores busy, and a few percent of a GPU. In a tile each row has its own seed, sums and end,
and every tile has the same shape, the last one filled up. So an answer depends on its row alone, bit for bit, as with
one row at a time: not on the row's place in its tile, on its company, or on the batch. Between tiles of different
numbers of rows answers differ by rounding.

That number is 1 or a multiple of 48. What is left over of a vectorised loop is rounded differently from the rest, so in
a tile of 3 rows a row's bits depend on its place. Loops over elements take up to 16 at once; matrix products take 8
rows where a processor has AVX-512, and 6 where it has AVX2, of which 16 times the particles leaves some over.
"""

import tensorflow as tf

from iwae_zoo._checks import integer
from iwae_zoo.distributions import noise
from iwae_zoo.estimation.rows import at_once
from iwae_zoo.model import memory

__all__ = ["MOST", "MULTIPLE", "checked", "choose", "enough"]

MULTIPLE = 48
# What a GPU is given, the larger that fits. Who goes through many rows asks for a multiple of the most at once.
MOST = 96
_OF_A_GPU = (MOST, MULTIPLE)
# Share of a GPU's memory, of all of it, so that answers do not depend on what else is in there.
_SHARE = 0.25


def checked(tile_rows):
    """Returns `tile_rows`.

    Raises:
      ValueError: if it is neither 1 nor a multiple of 48.
    """
    if integer("tile_rows", tile_rows) != 1 and tile_rows % MULTIPLE:
        raise ValueError(
            f"tile_rows must be 1 or a multiple of {MULTIPLE}, for answers that do not depend on a row's place: "
            f"received {tile_rows}."
        )
    return int(tile_rows)


def choose(tile_rows, model, chunk_size, proposal="encoder", *, backward=False):
    """The number of rows that are computed at once.

    Args:
      tile_rows: int; None for 1 on a CPU, and on a GPU for 96 or 48, the larger of which a tile takes a quarter of its
        memory; 1 where neither does, or nothing says how much that is.
      model: `ImportanceWeightedAutoencoder`, built.
      chunk_size: int, particles of a row at once.
      proposal: "encoder" or "prior"; the prior's draws are not in tiles.
      backward: as in `memory.bytes_per_particle`.

    Returns:
      int.

    Raises:
      ValueError: on a number that tiles cannot have, or a tile where draws cannot be in one.
    """
    if tile_rows is not None and checked(tile_rows) == 1:
        return 1
    if tile_rows is None and not tf.config.list_logical_devices("GPU"):
        return 1
    reason = _why_not(model, proposal)
    if tile_rows is not None:
        if reason:
            raise ValueError(f"tile_rows must be 1: received {tile_rows}, and {reason}. Leave it out.")
        return int(tile_rows)
    if reason:
        return 1
    try:
        room = _SHARE * memory.of_device()
    except RuntimeError:
        return 1
    row = chunk_size * memory.bytes_per_particle(model, backward)
    return next((rows for rows in _OF_A_GPU if rows * row <= room), 1)


def enough(tile_rows, model, count, *, name="chunk_size", instead=None, **options):
    """`memory.enough` for the rows that are computed at once, with so many particles or chains each.

    Args:
      tile_rows: int.
      model: `ImportanceWeightedAutoencoder`.
      count: int.
      name: as in `memory.enough`.
      instead: str, what there is to do where these are too many, of one row too; None where there is nothing.
      **options: of `memory.enough`.
    """
    fewer_rows = "a smaller tile_rows, or " * (tile_rows > 1) + (instead or "a device with more memory")
    return memory.enough(model, at_once(tile_rows), count, name=name, fewer_rows=fewer_rows, **options)


def _why_not(model, proposal):
    """Why rows cannot be in tiles; None if they can."""
    if proposal != "encoder":
        return f"proposal={proposal!r} draws a row at a time"
    posterior = model.encoder.posterior(tf.zeros([1, *model.data_shape]))
    if not noise.takes_seeds_by_row(posterior):
        return f"the encoder's {posterior.name} draws a row at a time, having no seeds_by_row"
    return None
