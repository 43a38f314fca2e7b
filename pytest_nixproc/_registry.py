"""The registry of managers, machines, sources and checks, of this package and of third-party packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache, cached_property
from types import ModuleType
from typing import Any, Final, TypeVar

import pluggy

from pytest_nixproc import checks, hookspecs, machines, managers, sources
from pytest_nixproc.checks.api import Rule
from pytest_nixproc.errors import NixprocError, UnknownName
from pytest_nixproc.hooks import PROJECT
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.sources.api import Source

PACKAGES: Final[Mapping[str, ModuleType]] = {
    "nixproc_sources": sources,
    "nixproc_checks": checks,
    "nixproc_managers": managers,
    "nixproc_machines": machines,
}
"""The packages in whose modules our implementations of the hooks are."""

Entry = TypeVar("Entry")


class Plugins(pluggy.PluginManager):
    """The plugins of others; what implements a hook has a name that begins as ours do."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return what is declared for an implementation; the other names of a module, some hundred, are not looked at.

        pytest makes the same difference, by its own prefix.
        """
        return super().parse_hookimpl_opts(plugin, name) if name.startswith("nixproc_") else None


class Names(Collection[str]):
    """Names that are found when they are looked at."""

    def __init__(self, find: Callable[[], Collection[str]]) -> None:
        self._find = find

    def __contains__(self, name: object) -> bool:
        return name in self._find()

    def __iter__(self) -> Iterator[str]:
        return iter(self._find())

    def __len__(self) -> int:
        return len(self._find())


class Registry:
    """Everything that is registered, by name.

    Modules of others are imported when a registry is made, ours when something of theirs is asked for: to import all of
    them takes longer than many a session of tests.
    """

    def __init__(self, plugins: Iterable[object] = ()) -> None:
        self._others = Plugins(PROJECT)
        self._others.add_hookspecs(hookspecs)
        self._others.load_setuptools_entrypoints(PROJECT)
        for plugin in plugins:
            self._others.register(plugin)
        self._others.check_pending()
        self._offered: dict[str, list[Any]] = {}

    def _offers(self, hook: str) -> list[Any]:
        """Return all that a hook's implementations offer: ours come first, then those of others in order."""
        ours = (module for module in modules_of(PACKAGES[hook]) if hasattr(module, hook))
        return [*(offer for module in ours for offer in getattr(module, hook)()), *self._offers_of_others(hook)]

    def _offers_of_others(self, hook: str) -> list[Any]:
        if hook not in self._offered:
            # pluggy calls what was registered last first.
            lists = reversed(getattr(self._others.hook, hook)())
            self._offered[hook] = [offer for offers in lists for offer in offers]
        return self._offered[hook]

    def _own(self, hook: str, name: str) -> Any:
        """Return our offer of a name, if its module is named alike, and nobody else has one of that name; else None."""
        module = module_named(PACKAGES[hook], name)
        if module is None or any(offer.name == name for offer in self._offers_of_others(hook)):
            return None
        return next((offer for offer in getattr(module, hook, list)() if offer.name == name), None)

    @cached_property
    def managers(self) -> Mapping[str, Manager]:
        """The process managers."""
        return by_name("manager", ((manager.name, manager) for manager in self._offers("nixproc_managers")))

    @cached_property
    def machines(self) -> Mapping[str, type[Machine]]:
        """The machines."""
        return by_name("machine", ((machine.name, machine) for machine in self._offers("nixproc_machines")))

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The checks, in the order of their codes."""
        rules = by_name("check", ((rule.code, rule) for rule in self._offers("nixproc_checks")))
        return tuple(rules[code] for code in sorted(rules))

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The readers of model files."""
        sources = by_name("source", ((source.name, source) for source in self._offers("nixproc_sources")))
        return tuple(sources.values())

    @property
    def manager_names(self) -> Collection[str]:
        """The names of the process managers, of which none is imported before somebody looks."""
        return Names(lambda: self.managers)

    def manager(self, name: str) -> Manager:
        """Return a manager; raises :class:`~pytest_nixproc.errors.UnknownName`."""
        manager: Manager | None = self._own("nixproc_managers", name)
        return manager or known("process manager", name, self.managers)

    def machine(self, name: str) -> type[Machine]:
        """Return a machine; raises :class:`~pytest_nixproc.errors.UnknownName`."""
        machine: type[Machine] | None = self._own("nixproc_machines", name)
        return machine or known("machine", name, self.machines)


def modules_of(package: ModuleType) -> Iterable[ModuleType]:
    """Return the modules of a package, in the order of their names."""
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        yield importlib.import_module(f"{package.__name__}.{entry.name}")


@cache
def module_named(package: ModuleType, name: str) -> ModuleType | None:
    """Return the module of a package whose name is, for an identifier, another one; None without it."""
    stem = name.replace("-", "_")
    has_one = any(entry.name == stem for entry in pkgutil.iter_modules(package.__path__))
    return importlib.import_module(f"{package.__name__}.{stem}") if has_one else None


def by_name(kind: str, entries: Iterable[tuple[str, Entry]]) -> Mapping[str, Entry]:
    """Return the entries as a mapping; a name that is registered twice is an error."""
    found: dict[str, Entry] = {}
    for name, entry in entries:
        if name in found:
            raise NixprocError(f"two {kind}s are registered as {name!r}", remedy="uninstall or rename one of them")
        found[name] = entry
    return found


def known(kind: str, name: str, entries: Mapping[str, Entry]) -> Entry:
    """Return an entry by its name; raise with the known names if there is none."""
    if name not in entries:
        raise UnknownName(kind, name, entries)
    return entries[name]
