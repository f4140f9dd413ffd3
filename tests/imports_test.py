"""Imports go one way: which part of the library may know which others."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIBRARY, SERVING = "iwae_zoo", "iwae_zoo_serving"
SHARED = {"columns", "_checks", "_deferred", "_files", "_precision", "_rows", "_shapes", "_tracing", "_version"}
_MODEL = {"objectives", "distributions", "networks"}
_ESTIMATION = {*_MODEL, "model"}
_TRAINING = {*_ESTIMATION, "estimation", "data", "figures", "presets"}
# By part of a package: the others that it may import, besides those that everybody shares.
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
_FORMS = {"errors", "json_tensors"}
SERVING_KNOWS: dict[str, set[str]] = {
    **{part: set() for part in ("__init__", "errors")},
    **{part: {"errors"} for part in ("json_tensors", "models", "grpc_service")},
    **{part: _FORMS for part in ("client", "rest")},
    "server": {"models", "grpc_service", "rest"},
    "programs": {"client", "errors", "server"},
}
# What of the library is imported where the server's package is asked to read a data set or a table, and only then.
SERVING_ASKS = {"programs/query": {"columns", "_files", "data", "estimation"}}


def modules(package):
    """Every module of a package by its path without suffix, relative to the package: "programs/query"."""
    paths = {path.relative_to(ROOT / package).with_suffix(""): path for path in (ROOT / package).rglob("*.py")}
    return {str(name): ast.parse(path.read_text()) for name, path in sorted(paths.items())}


def part_of(module, knows):
    """The key of `knows` that a module falls under."""
    return module if module in knows else module.partition("/")[0]


def imported(package, nodes):
    """Parts of a package that are imported by these nodes of a module."""
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.partition(".")[2].partition(".")[0] for name in names if name.partition(".")[0] == package)


def at_import(node):
    """The nodes of a module that run when it is imported: all but its functions'."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from at_import(child)


LIBRARY_MODULES, SERVING_MODULES = modules(LIBRARY), modules(SERVING)


@pytest.mark.parametrize("module", LIBRARY_MODULES)
def test_imports_go_one_way(module):
    own, tree = part_of(module, KNOWS), LIBRARY_MODULES[module]
    assert set(imported(LIBRARY, ast.walk(tree))) <= KNOWS[own] | SHARED | {own}
    assert not set(imported(SERVING, ast.walk(tree)))


@pytest.mark.parametrize("module", SERVING_MODULES)
def test_the_server_starts_without_the_library(module):
    own, tree = part_of(module, SERVING_KNOWS), SERVING_MODULES[module]
    assert set(imported(SERVING, ast.walk(tree))) <= SERVING_KNOWS[own] | {own}
    assert set(imported(LIBRARY, ast.walk(tree))) <= SERVING_ASKS.get(module, set())
    assert not set(imported(LIBRARY, at_import(tree)))
