"""--particle_chunk and --tile_rows: what is computed at once, as a number or as there is memory for."""

import tensorflow as tf
from absl import flags

from iwae_zoo.estimation import likelihood, tiles
from iwae_zoo.estimation.rows import at_once
from iwae_zoo.model import memory

__all__ = ["AUTO", "chosen", "define", "define_tile_rows"]

AUTO = "auto"


class _Parser(flags.ArgumentParser):
    syntactic_help = "a positive integer, or auto"

    def parse(self, argument):
        if argument == AUTO:
            return AUTO
        if not str(argument).isdigit() or not int(argument):
            raise ValueError(f"must be {self.syntactic_help}")
        return int(argument)

    def flag_type(self):
        return "int or auto"


def define(values, default="all"):
    """Defines --particle_chunk.

    Args:
      values: `absl.flags.FlagValues` of the program.
      default: str, what it is without.

    Returns:
      The holder of the flag.
    """
    what = "Most particles of an example decoded at once: bounds memory. auto: as many as there is free memory for, a "
    what += f"number that is recorded or shown. Default: {default}."
    return flags.DEFINE(_Parser(), "particle_chunk", None, what, values)


def define_tile_rows(values, default):
    """Defines --tile_rows of the default number, or None, and returns its holder."""
    what = "Examples that are answered at once, 1 or a multiple of 48: more keep a GPU busy. "
    what += "Default: 1." if default else "Default: 1 on a CPU; on a GPU 48 or 96, by its memory."
    return flags.DEFINE_integer("tile_rows", default, what, flag_values=values)


def chosen(particle_chunk, tile_rows, model, num_samples, proposal="encoder", copies=1):
    """The numbers that the two flags stand for when particles are weighed.

    Args:
      particle_chunk: int, "auto" or None.
      tile_rows: int or None.
      model: `ImportanceWeightedAutoencoder`, built.
      num_samples: int, particles of an example.
      proposal: as of `tiles.choose`.
      copies: int, as of `memory.enough`.

    Returns:
      (particle_chunk, tile_rows): ints.

    Raises:
      ValueError: as `tiles.choose`; if there is no particle; on "auto" with several machines.
    """
    num_samples, most = likelihood.checked_counts(None, num_samples=num_samples)
    if particle_chunk == AUTO:
        if isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(f"--particle_chunk={AUTO} is for one machine, as each has its own memory: give a number.")
        tile_rows = tiles.choose(tile_rows, model, copies * most, proposal)
        of_particle = copies * memory.bytes_per_particle(model)
        return memory.fitting_chunk(at_once(tile_rows), of_particle, most), tile_rows
    chunk = most if particle_chunk is None else min(particle_chunk, num_samples)
    return chunk, tiles.choose(tile_rows, model, copies * chunk, proposal)
