"""The registry of managers, machines, sources and checks, of this package and of third-party packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cached_property
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

PACKAGES: Final = (sources, checks, managers, machines)
Entry = TypeVar("Entry")


class Plugins(pluggy.PluginManager):
    """The plugins of this package and of others; what implements a hook has a name that begins as theirs do."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return what is declared for an implementation; the other names of a module, some hundred, are not looked at.

        pytest makes the same difference, by its own prefix.
        """
        return super().parse_hookimpl_opts(plugin, name) if name.startswith("nixproc_") else None


class Registry:
    """Everything that is registered, by name; modules are imported when a registry is made."""

    def __init__(self, plugins: Iterable[object] = ()) -> None:
        self._plugins = Plugins(PROJECT)
        self._plugins.add_hookspecs(hookspecs)
        for package in PACKAGES:
            for module in modules_of(package):
                self._plugins.register(module)
        self._plugins.load_setuptools_entrypoints(PROJECT)
        for plugin in plugins:
            self._plugins.register(plugin)
        self._plugins.check_pending()

    def _offers(self, hook: str) -> list[Any]:
        # pluggy calls what was registered last first: ours come first here, then others in order.
        return [offer for offers in reversed(getattr(self._plugins.hook, hook)()) for offer in offers]

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

    def manager(self, name: str) -> Manager:
        """Return a manager; raises :class:`~pytest_nixproc.errors.UnknownName`."""
        return known("process manager", name, self.managers)

    def machine(self, name: str) -> type[Machine]:
        """Return a machine; raises :class:`~pytest_nixproc.errors.UnknownName`."""
        return known("machine", name, self.machines)


def modules_of(package: ModuleType) -> Iterable[ModuleType]:
    """Return the modules of a package, in the order of their names."""
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        yield importlib.import_module(f"{package.__name__}.{entry.name}")


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
