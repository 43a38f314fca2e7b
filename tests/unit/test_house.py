"""The house: which part of the package may import which, and what only some of them may do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import pytest_nixproc
from pytest_nixproc.plugin import options
from pytest_nixproc.registry import Registry
from pytest_nixproc.sources.api import DEFAULT_MANAGER

PACKAGE: Final = Path(pytest_nixproc.__file__).parent

FLOORS: Final = (
    ("plugin",),
    ("cli", "__main__", "generation"),
    ("report",),
    ("registry", "hookspecs"),
    ("deployment",),
    ("checks",),
    ("managers",),
    ("sources",),
    ("images",),
    ("machines",),
    ("model",),
    ("hooks",),
    ("errors",),
)
"""The parts from top to bottom: each may import those on its own floor and below it."""

HEIGHT: Final = {part: -number for number, floor in enumerate(FLOORS) for part in floor}

ACTS: Final = {
    "subprocess": None,
    "select": None,
    "multiprocessing": None,
    "os": {
        *("kill", "killpg", "fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "waitpid"),
        *("execv", "execve", "execvp", "execvpe", "execl", "execle", "execlp", "pidfd_open"),
    },
    "time": {"sleep", "monotonic", "perf_counter", "time"},
    "signal": {"pidfd_send_signal"},
}
"""What only machines do: spawn, signal, sleep and read the clock. None stands for a whole module."""

ACTORS: Final = ("machines/", "managers/proxy.py")

MODULES: Final = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@cache
def tree_of(module: str) -> ast.Module:
    """Parse a module."""
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"), module)


def is_for_types_only(node: ast.AST) -> bool:
    """Tell whether a statement is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes_of(node: ast.AST, *, is_lazy: bool) -> Iterator[ast.AST]:
    """Yield all nodes of a tree; of a lazy module, those that type checkers alone see are left out."""
    for child in ast.iter_child_nodes(node):
        if not (is_lazy and is_for_types_only(child)):
            yield child
            yield from nodes_of(child, is_lazy=is_lazy)


def imports_of(module: str) -> Iterator[str]:
    """Yield the full names that a module imports, in functions too."""
    for node in nodes_of(tree_of(module), is_lazy=module == "__init__.py"):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to: ``managers`` for ``managers/api.py``."""
    return module.partition("/")[0].removesuffix(".py")


def own_parts(module: str) -> set[str]:
    """Return the parts of the package that a module imports."""
    names = [name.split(".") for name in imports_of(module) if name.split(".")[0] == "pytest_nixproc"]
    return {name[1] for name in names if name[1] in HEIGHT or name[1] == "testing"}


def upward_imports(module: str) -> list[str]:
    """Return the parts that a module imports although they lie above it."""
    own = part_of(module)
    return sorted(part for part in own_parts(module) - {own} if part == "testing" or HEIGHT[part] > HEIGHT[own])


def names_imported(tree: ast.Module) -> dict[str, str]:
    """Return what local names stand for: ``{"sleep": "time.sleep"}``."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def acts_of(module: str) -> list[str]:
    """Return where a module uses what only machines may."""
    tree = tree_of(module)
    known = names_imported(tree)
    used = {known[name] for name in known if known[name].partition(".")[0] in ACTS}
    used |= {
        f"{known[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known
    }
    return sorted(name for name in used if is_act(name))


def is_act(name: str) -> bool:
    """Tell whether a full name is something that only machines do."""
    module, _, attribute = name.partition(".")
    return module in ACTS and (ACTS[module] is None or attribute in (ACTS[module] or ()))


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) not in ("testing", "__init__")])
def test_imports_point_downwards(module: str) -> None:
    """A module imports its own floor and those below it; nothing imports what is for tests."""
    assert part_of(module) in HEIGHT, "a new part of the package needs its floor in FLOORS"
    assert upward_imports(module) == []


def test_the_package_itself_is_lazy() -> None:
    """Importing the package imports no part of it."""
    assert own_parts("__init__.py") == set()


def test_testing_is_imported_by_nothing() -> None:
    """What is for tests is on no floor."""
    assert "testing" not in HEIGHT
    assert [module for module in MODULES if part_of(module) != "testing" and "testing" in own_parts(module)] == []


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) not in ("plugin", "testing")])
def test_only_the_plugin_knows_pytest(module: str) -> None:
    """Everything but the plugin can be used without pytest."""
    names = {name.partition(".")[0] for name in imports_of(module)}
    assert not names & {"pytest", "_pytest"}


def test_only_the_strategies_know_hypothesis() -> None:
    """It is optional: whoever does not import the strategies does not need it."""
    optional = ("hypothesis.", "pytest_nixproc.testing.strategies.")
    knowing = [module for module in MODULES if any(f"{name}.".startswith(optional) for name in imports_of(module))]
    assert knowing == ["testing/strategies.py"]


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith((*ACTORS, "testing/"))])
def test_only_machines_act(module: str) -> None:
    """Only machines spawn, signal, sleep and read the clock, and programs of their own: the proxy, those for tests."""
    assert acts_of(module) == []


def test_rule_can_fail() -> None:
    """The rules find what they are for: the machines do act, and the plugin does import pytest."""
    assert "select.select" in acts_of("machines/guardian.py")
    assert "os.posix_spawn" in acts_of("managers/proxy.py")
    assert "subprocess.Popen" in acts_of("machines/connection.py")
    assert "pytest" in {name.partition(".")[0] for name in imports_of("plugin/options.py")}
    assert {"checks", "managers", "machines"} <= own_parts("deployment/engine.py")


DEFAULTS: Final = ("plugin/options.py", "sources/api.py")
"""Where the default manager is named: for pytest, which must import nothing for that, and for models."""

OTHER_MEANINGS: Final = {"systemd": ("machines/", "deployment/driver_verbs.py")}
"""Names that mean something else in places: throwaway machines are booted by systemd, whichever manager they have."""


FILES: Final = sorted(
    str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"
)


def spellings(manager: str) -> set[str]:
    """Return how a manager's name may be written, in small letters."""
    return {manager.lower(), *(manager.lower().replace("-", other) for other in ("_", "", " "))}


def names_manager(file: str, manager: str) -> bool:
    """Tell whether a file has a manager's name anywhere: in code, quotes or comments, or as part of a word."""
    text = (PACKAGE / file).read_text(encoding="utf-8").lower()
    return any(spelling in text for spelling in spellings(manager))


def own_modules(manager: str) -> tuple[str, ...]:
    """Return how the paths of a manager's own modules begin."""
    name = manager.replace("-", "_")
    return f"managers/{name}.py", f"managers/{name}/", *OTHER_MEANINGS.get(manager, ())


@pytest.mark.parametrize("manager", Registry().managers)
def test_only_its_own_file_names_a_manager(manager: str) -> None:
    """Nothing in the package but its own file or package knows a manager; the default one is named as such, too."""
    others = [file for file in FILES if not file.startswith(own_modules(manager))]
    expected = list(DEFAULTS) if manager == DEFAULT_MANAGER else []
    assert [file for file in others if names_manager(file, manager)] == expected


def test_default_manager_is_the_same_everywhere() -> None:
    """Pytest and models have the same default."""
    assert options.BY_NAME["manager"].default == DEFAULT_MANAGER


def test_every_floor_exists() -> None:
    """The list of floors names nothing that is gone."""
    assert set(HEIGHT) <= {part_of(module) for module in MODULES}
