"""The house: which part of the package may import which, and what only some of them may do."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache, cached_property
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Final

import pytest_nixproc
from pytest_nixproc._plugin import options
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.context import DEFAULT_MANAGER

PACKAGE: Final = Path(pytest_nixproc.__file__).parent

FLOORS: Final = (
    ("_plugin", "_cli", "_render"),
    ("_system", "_recovery", "_orphans"),
    ("_deployment", "_registry"),
    ("_planning", "_inspection", "hookspecs"),
    ("sources", "managers", "checks", "_persistence"),
    ("model", "machines"),
    ("errors", "hooks", "values"),
)
"""The rooms from top to bottom: each may import those below its floor, and none beside it."""

DOORS: Final = ("__init__", "__main__")
"""What others come in by; these have no room."""

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


@cache
def imports_of(module: str) -> tuple[str, ...]:
    """Return the full names that a module imports, in functions too."""
    names: list[str] = []
    for node in nodes_of(tree_of(module), is_lazy=module == "__init__.py"):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to: ``managers`` for ``managers/api.py``."""
    return module.partition("/")[0].removesuffix(".py")


def own_parts(module: str) -> set[str]:
    """Return the parts of the package that a module imports."""
    names = [name.split(".") for name in imports_of(module) if name.split(".")[0] == "pytest_nixproc"]
    return {name[1] for name in names if name[1] in HEIGHT or name[1] == "testing"}


def upward_imports(module: str) -> list[str]:
    """Return the parts that a module imports although they do not lie below it."""
    own = part_of(module)
    return sorted(part for part in own_parts(module) - {own} if part == "testing" or HEIGHT[part] >= HEIGHT[own])


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


def test_every_part_has_its_floor() -> None:
    """A new part of the package has a place in FLOORS; what is for tests is on none."""
    assert {part_of(module) for module in MODULES} - {"testing", *DOORS} == set(HEIGHT)


def test_imports_point_downwards() -> None:
    """A module imports its own room and those on lower floors; nothing imports what is for tests."""
    upward = {module: upward_imports(module) for module in MODULES if part_of(module) in HEIGHT}
    assert {module: parts for module, parts in upward.items() if parts} == {}


@cache
def modules_imported(module: str) -> frozenset[str]:
    """Return the modules of ours that a module imports, in functions too, but for the doors."""
    found = set()
    for name in imports_of(module):
        path = "/".join(name.split(".")[1:])
        whole = [path, path.rpartition("/")[0]]
        found |= {file for part in whole[:1] for file in (f"{part}.py", f"{part}/__init__.py") if file in MODULES} or {
            file for part in whole[1:] for file in (f"{part}.py", f"{part}/__init__.py") if file in MODULES
        }
    return frozenset(found - {module, *(f"{door}.py" for door in DOORS)})


def test_no_circles() -> None:
    """No modules import each other in a circle, not in functions either."""
    TopologicalSorter({module: modules_imported(module) for module in MODULES}).prepare()


MOST_IMPORTS: Final = 15
WIDE: Final = {
    "_plugin/models.py": "a model's items do everything that can be done with a system",
    "testing/conformance/bench.py": "it stands in for all that surrounds a manager",
}
"""Modules that import more of ours, and why."""


def test_imports_are_few() -> None:
    """A module that needs much of the house is in the wrong place, or two."""
    wide = {module: len(modules_imported(module)) for module in MODULES}
    assert {module for module, count in wide.items() if count > MOST_IMPORTS} == set(WIDE)


def test_the_package_itself_is_lazy() -> None:
    """Importing the package imports no part of it."""
    assert own_parts("__init__.py") == set()


def test_testing_is_imported_by_nothing() -> None:
    """What is for tests is on no floor."""
    assert "testing" not in HEIGHT
    assert [module for module in MODULES if part_of(module) != "testing" and "testing" in own_parts(module)] == []


def knows_pytest(module: str) -> bool:
    """Tell whether a module imports pytest."""
    return not {name.partition(".")[0] for name in imports_of(module)}.isdisjoint({"pytest", "_pytest"})


def test_only_the_plugin_knows_pytest() -> None:
    """Everything but the plugin, and what is for tests, can be used without pytest."""
    assert {part_of(module) for module in MODULES if knows_pytest(module)} == {"_plugin", "testing"}


def test_only_the_strategies_know_hypothesis() -> None:
    """It is optional: whoever does not import the strategies does not need it."""
    optional = ("hypothesis.", "pytest_nixproc.testing.strategies.")
    knowing = [module for module in MODULES if any(f"{name}.".startswith(optional) for name in imports_of(module))]
    assert knowing == ["testing/strategies.py"]


def test_only_machines_act() -> None:
    """Only machines spawn, signal, sleep and read the clock, and programs of their own: the proxy, those for tests."""
    acts = {module: acts_of(module) for module in MODULES if not module.startswith((*ACTORS, "testing/"))}
    assert {module: names for module, names in acts.items() if names} == {}


def test_rule_can_fail() -> None:
    """The rules find what they are for: the machines do act, and the plugin does import pytest."""
    assert "select.select" in acts_of("machines/guardian/process.py")
    assert "os.posix_spawn" in acts_of("managers/proxy.py")
    assert "subprocess.Popen" in acts_of("machines/guardian/connection.py")
    assert knows_pytest("_plugin/options.py")
    assert "managers/launch.py" in modules_imported("managers/api.py")
    assert {"checks", "managers", "machines"} <= own_parts("_deployment/context.py") | own_parts(
        "_deployment/judging.py"
    )


DEFAULTS: Final = ("_plugin/options.py", "model/context.py")
"""Where the default manager is named: for pytest, which must import nothing for that, and for models."""

OTHER_MEANINGS: Final = {"systemd": ("machines/", "_system/nixos_driver/verbs.py")}
"""Names that mean something else in places: throwaway machines are booted by systemd, whichever manager they have."""


FILES: Final = sorted(
    str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"
)


def spellings(manager: str) -> set[str]:
    """Return how a manager's name may be written, in small letters."""
    return {manager.lower(), *(manager.lower().replace("-", other) for other in ("_", "", " "))}


@cache
def text_of(file: str) -> str:
    """Return the content of a file in small letters."""
    return (PACKAGE / file).read_text(encoding="utf-8").lower()


def names_manager(file: str, manager: str) -> bool:
    """Tell whether a file has a manager's name anywhere: in code, quotes or comments, or as part of a word."""
    return any(spelling in text_of(file) for spelling in spellings(manager))


def own_modules(manager: str) -> tuple[str, ...]:
    """Return how the paths of a manager's own modules begin."""
    name = manager.replace("-", "_")
    return f"managers/{name}.py", f"managers/{name}/", *OTHER_MEANINGS.get(manager, ())


def test_only_its_own_file_names_a_manager() -> None:
    """Nothing in the package but its own file or package knows a manager; the default one is named as such, too."""
    knowing = {
        manager: [file for file in FILES if not file.startswith(own_modules(manager)) and names_manager(file, manager)]
        for manager in Registry().managers
    }
    assert {manager: files for manager, files in knowing.items() if files} == {DEFAULT_MANAGER: list(DEFAULTS)}


MOST_MEMBERS: Final = 25
"""How many methods and properties a class may have, with what it inherits from ours."""

ONE_SUITE: Final = "its members are the suite's tests, and a project inherits all of them from one class"
LARGE: Final = {
    "testing.conformance.ManagerConformance": ONE_SUITE,
    "testing.conformance.test_unprivileged.TestUnprivileged": ONE_SUITE,
}
"""Classes that have more, each with the reason."""


def is_own(kind: type) -> bool:
    """Tell whether a class is ours."""
    return kind.__module__.partition(".")[0] == pytest_nixproc.__name__


def is_member(name: str, value: object) -> bool:
    """Tell whether a class has a method or property by its own name; special methods do not count."""
    if name.startswith("__") and name != "__init__":
        return False
    if isinstance(value, FunctionType):
        return value.__name__ == name
    return isinstance(value, property | cached_property | classmethod | staticmethod)


def members_of(kind: type) -> set[str]:
    """Return the methods and properties that a class has of ours, inherited ones too."""
    bases = filter(is_own, kind.__mro__)
    return {name for base in bases for name, value in vars(base).items() if is_member(name, value)}


def classes() -> Iterator[tuple[str, type]]:
    """Yield the classes of the package, by their names in it."""
    for module in MODULES:
        name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if name not in DOORS:
            imported = import_module(f"{pytest_nixproc.__name__}.{name}")
            own = (item for item in vars(imported).values() if isinstance(item, type))
            yield from ((f"{name}.{kind.__name__}", kind) for kind in own if kind.__module__ == imported.__name__)


def test_classes_are_small() -> None:
    """No class has more than can be kept in mind; what is larger for a reason is named with it."""
    sizes = {name: len(members_of(kind)) for name, kind in classes()}
    assert {name for name, size in sizes.items() if size > MOST_MEMBERS} == LARGE.keys()


def test_class_names_are_unique() -> None:
    """No two classes of the package have one name, so that it says what is meant wherever it stands."""
    names = Counter(kind.__name__ for _, kind in classes())
    assert names["Machine"] == 1
    assert [name for name, number in names.items() if number > 1] == []


def test_inherited_members_count() -> None:
    """What a class inherits from ours is counted, and special methods are not: a machine has its verbs."""
    members = members_of(Machine)
    assert {"__init__", "facts", "succeed", "unavailable_reason", "address"} <= members
    assert "__enter__" not in members


def test_default_manager_is_the_same_everywhere() -> None:
    """Pytest and models have the same default."""
    assert options.BY_NAME["manager"].default == DEFAULT_MANAGER
