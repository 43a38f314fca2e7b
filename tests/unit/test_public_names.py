"""The package's public names."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pytest_nixproc

SOURCE = Path(pytest_nixproc.__file__).read_text(encoding="utf-8")

STRATEGIES = (
    *("deployable_models", "conflicting_models", "models", "values", "names", "ports", "shapes"),
    *("Sketch", "Part", "Conflict", "CONFLICTS"),
)


def declared_for_types() -> set[str]:
    """Return the names that the package imports for type checkers only."""
    (block,) = (node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    own = [node for node in block.body if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    return {alias.name for node in own for alias in node.names}


@pytest.mark.parametrize("name", pytest_nixproc.__all__)
def test_public_name_can_be_imported(name: str) -> None:
    """Each public name is there, and is what its home calls by that name."""
    value = getattr(pytest_nixproc, name)
    home = "model" if name == "ready" else pytest_nixproc.HOMES[name]
    assert value is getattr(import_module(f"pytest_nixproc.{home}"), name)
    assert value.__doc__


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy_can_be_imported(name: str) -> None:
    """Each name that the documentation gives to users of Hypothesis is there, and says what it is."""
    assert getattr(import_module("pytest_nixproc.testing.strategies"), name).__doc__


def test_lists_agree() -> None:
    """What is public, what has a home, and what type checkers see are the same names, in order."""
    public = pytest_nixproc.__all__
    assert public == sorted(public)
    assert set(public) == {*pytest_nixproc.HOMES, "ready"} == declared_for_types()


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public is reported the way Python does."""
    with pytest.raises(AttributeError, match="module 'pytest_nixproc' has no attribute 'nothing'"):
        _ = pytest_nixproc.nothing


def test_importing_costs_nothing() -> None:
    """The package imports none of its modules until a name is used."""
    tree = ast.parse(SOURCE)
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [alias.name if isinstance(node, ast.Import) else node.module for node in imported for alias in node.names]
    assert {module.partition(".")[0] for module in modules if module} <= set(sys.stdlib_module_names)
