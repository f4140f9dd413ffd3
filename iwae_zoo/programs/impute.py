"""Fills the holes of a table or an array by a trained model, and says how far each answer can be trusted.

python impute_main.py --preset=breast_cancer_table --input=holes.csv --output=filled.csv
python impute_main.py --model=runs/table-iwae-m1-k20-seed0/model.keras --input=holes.csv --output=filled.csv
"""

import functools
import pathlib
from typing import Any

import numpy as np
import tqdm
from absl import flags

import iwae_zoo_console as console
from iwae_zoo._files import whole
from iwae_zoo.data import files, filled
from iwae_zoo.distributions import likelihoods
from iwae_zoo.estimation import imputation, tiles
from iwae_zoo.model import examples
from iwae_zoo.programs import chunks, trained

_FLAGS = console.flag_values()
_MODEL, _PRESET = trained.define(_FLAGS)
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "A .csv or .parquet file with the columns that the model was trained on; or a .npy file with an array [N, ...].",
    required=True,
    flag_values=_FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Where the answers go: of a table a file of the same ending, of an array a .npz file.",
    required=True,
    flag_values=_FLAGS,
)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1000, "Importance samples per row.", 1, flag_values=_FLAGS)
_NUM_IMPUTATIONS = flags.DEFINE_integer(
    "num_imputations", 0, "Draws of what is missing, for multiple imputation.", 0, flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same answers.", 0, flag_values=_FLAGS)
_PARTICLE_CHUNK = chunks.define(_FLAGS, "at most 2500")
_TILE_ROWS = chunks.define_tile_rows(_FLAGS, None)
# Rows that are imputed by one call, whole tiles: how often the progress bar moves.
_ROWS = 3 * tiles.MOST


def _table(model, impute, progress):
    """Fills a table part by part; returns the numbers of rows and of those not to be trusted."""
    head = model.decoder.head
    if not isinstance(head, likelihoods.Columns):
        raise ValueError(f"The model was not trained on a table: its likelihood is {head.name!r}. Give it a .npy file.")
    rows = untrusted = 0
    with whole(_OUTPUT.value) as partial, filled.writer(partial, head.columns, _NUM_IMPUTATIONS.value) as write:
        for part in filled.parts(_INPUT.value, head.columns, _ROWS):
            answer = impute(part.x, first_row=rows)
            write(part, answer)
            rows += len(part.x)
            untrusted += int((~answer.trusted).sum())
            progress.update(len(part.x))
        if not rows:
            raise ValueError(f"{_INPUT.value} holds no rows.")
    return rows, untrusted


def _array(impute, progress):
    """The same for an array."""
    x = files.array(_INPUT.value)
    examples.check(x, missing=True)
    progress.reset(total=len(x))
    parts = []
    for row in range(0, len(x), _ROWS):
        parts.append(impute(np.asarray(x[row : row + _ROWS], np.float32), first_row=row))
        progress.update(len(parts[-1].log_prob))
    answer = imputation.Imputation.joined(parts)
    answers: dict[str, Any] = {**answer._asdict(), "trusted": answer.trusted}
    if not _NUM_IMPUTATIONS.value:
        del answers["draws"]
    with whole(_OUTPUT.value) as partial:
        np.savez(partial, **answers)
    return len(x), int((~answer.trusted).sum())


def main(name):
    """Imputes; the exit status is not 0 if nothing was written."""
    source, output = pathlib.Path(_INPUT.value), pathlib.Path(_OUTPUT.value)
    wanted = {".csv": ".csv", ".parquet": ".parquet", ".npy": ".npz"}.get(source.suffix)
    if wanted is None or output.suffix != wanted:
        console.fail(
            name,
            f"--input={source} must end in .csv, .parquet or .npy, and --output={output} in .csv, .parquet or .npz to "
            "match.",
        )
    try:
        console.check_writable(output)
        model = trained.load(_MODEL, _PRESET)
        imputation.check_takes_missing(model)
        asked = (_PARTICLE_CHUNK.value, _TILE_ROWS.value)
        particle_chunk, tile_rows = chunks.chosen(*asked, model, _NUM_SAMPLES.value, copies=imputation.MOMENTS)
        impute = functools.partial(
            imputation.impute,
            model,
            num_samples=_NUM_SAMPLES.value,
            num_imputations=max(1, _NUM_IMPUTATIONS.value),
            seed=_SEED.value,
            chunk_size=particle_chunk,
            tile_rows=tile_rows,
        )
        with tqdm.tqdm(unit="row", disable=None if console.is_interactive() else True) as progress:
            filled_by = _array if wanted == ".npz" else functools.partial(_table, model)
            rows, untrusted = filled_by(impute, progress)
    except (ValueError, OSError, EOFError, RuntimeError, MemoryError) as error:
        console.fail(name, error)
    at_once = f" --particle_chunk={particle_chunk} had room." if _PARTICLE_CHUNK.value == chunks.AUTO else ""
    print(f"{rows} rows in {output}; {untrusted} of them are marked as not to be trusted.{at_once}")


run = functools.partial(console.run, main, _FLAGS, __doc__)
