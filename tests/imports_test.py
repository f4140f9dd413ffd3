"""Imports go one way: which part of the library may know which others."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "iwae_zoo"
SHARED = {"columns", "_checks", "_files", "_tracing", "_version"}
_MODEL = {"objectives", "distributions", "networks"}
_ESTIMATION = {*_MODEL, "model"}
_TRAINING = {*_ESTIMATION, "estimation", "data", "figures", "presets"}
# By part: the others that it may import, besides those that everybody shares.
KNOWS: dict[str, set[str]] = {
    **{part: set() for part in (*SHARED, "data", "figures", "objectives", "distributions", "presets/table")},
    "networks": {"distributions"},
    "model": _MODEL,
    "model/autoencoder": {*_MODEL, "model", "presets"},  # Presets when `from_preset` is called.
    "estimation": _ESTIMATION,
    "presets": _ESTIMATION,
    "testing": _ESTIMATION,
    "training": _TRAINING,
    "saved_model": {*_ESTIMATION, "estimation"},
    "sklearn": {*_ESTIMATION, "estimation", "data", "presets", "training"},
    "programs": {*_TRAINING, "training", "saved_model"},
    "__init__": {*_TRAINING, "training", "saved_model", "sklearn", "testing"},
}


def part_of(path):
    """The key of `KNOWS` that a path without suffix, relative to the package, falls under."""
    return str(path) if str(path) in KNOWS else path.parts[0]


def imported(tree):
    """Parts of the package that a module imports, in its functions too."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("iwae_zoo."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = part_of(path.relative_to(PACKAGE).with_suffix(""))
    assert set(imported(ast.parse(path.read_text()))) <= KNOWS[own] | SHARED | {own}
