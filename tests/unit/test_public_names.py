"""The package's public names."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import pytest_nixproc

ROOT = Path(__file__).parents[2]
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


def public_modules() -> set[str]:
    """Return the modules that the reference calls public."""
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    table = text.partition("### Public modules")[2].partition("###")[0]
    found = set()
    for row in re.findall(r"^\| `pytest_nixproc.*", table, re.MULTILINE):
        first, *others = re.findall(r"`([\w.]+)`", row.split("|")[1])
        found |= {first, *(f"{first.rpartition('.')[0]}{other}" for other in others)}
    return found


def imported_by_users() -> Iterator[tuple[str, str]]:
    """Yield the modules of ours that examples, documents and typing tests import, each with who does."""
    files = [path for place in ("examples", "tests/typing") for path in (ROOT / place).rglob("*.py")]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        texts[str(path.relative_to(ROOT))] = "\n".join(blocks)
    for name, text in texts.items():
        for module in re.findall(r"^\s*(?:from|import) (pytest_nixproc[\w.]*)", text, re.MULTILINE):
            yield name, module


def test_users_need_public_modules_alone() -> None:
    """Examples, documents and typing tests import what the reference calls public, and nothing else."""
    modules = list(imported_by_users())
    assert ("tests/typing/public_api.py", "pytest_nixproc.checks.api") in modules
    assert [(name, module) for name, module in modules if module not in public_modules()] == []


def test_public_modules_are_there() -> None:
    """What the reference calls public can be imported, and says what it is."""
    assert "pytest_nixproc.managers.shell" in public_modules()
    assert all(import_module(module).__doc__ for module in public_modules())


def test_version() -> None:
    """The version is that of the distribution."""
    assert pytest_nixproc.__version__ == version("pytest-nixproc")


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
