"""The matrix: the points at which a test that uses a system runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_nixproc._plugin import options
from pytest_nixproc._registry import Registry
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.sources.loader import ModelLike
from pytest_nixproc.values.value import Entity

PRIVILEGED: Final = "privileged"


class Point(Entity):
    """One point of the matrix: the choices with which a system is deployed."""

    manager: Manager
    machine: str
    """The name of the kind of machine."""

    profile: str
    """``unprivileged`` or ``privileged``."""

    private_network: bool = False
    """Whether a throwaway machine has a network of its own."""

    model: ModelLike | None = None
    """The marker's model; None where it names none."""

    params: Mapping[str, Any] = field(default_factory=dict)
    """The marker's arguments for the model."""

    def __repr__(self) -> str:
        return f"{self.manager.name}-{self.profile}"


class Matrix:
    """The maker of points; equal ones are the same object, so that pytest shares their fixtures."""

    def __init__(self, config: pytest.Config, registry: Registry) -> None:
        self.config = config
        self.registry = registry
        self._points: dict[object, Point] = {}
        self._reasons: dict[tuple[str, str], str] = {}

    def parameters(self, marker: pytest.Mark | None, directory: Path = Path()) -> list[Any]:
        """Return the points for a test with this marker, as parameters; those that cannot run here are skipped.

        The path of a model is relative to ``directory``, that of the test, however long the system lives. A plan starts
        nothing, so it is made for managers that cannot run here, too. Raises
        :class:`~pytest_nixproc.errors.NixprocError` for a marker that makes no sense.
        """
        wanted = dict(marker.kwargs) if marker else {}
        if unknown := wanted.keys() - {"model", "managers", "profile", "params"}:
            remedy = "it takes model, managers, profile and params"
            raise NixprocError(f"the marker nixproc has no argument {min(unknown)!r}", remedy=remedy)
        if isinstance(wanted.get("model"), str | os.PathLike):
            wanted["model"] = str(directory / wanted["model"])
        profiles = self.profiles(wanted.get("profile"))
        plans = options.read_flag(self.config, "plan")
        return [
            pytest.param(
                self._point(manager, profile, wanted),
                id=f"{manager.name}-{profile}" if len(profiles) > 1 else manager.name,
                marks=self.skip_marks(None if plans else manager, self.machine, self.unavailable_reason_of(profile)),
            )
            for manager in self.managers(wanted.get("managers"))
            for profile in profiles
        ]

    def profiles(self, only: str | None = None) -> list[str]:
        """Return the profiles that the options choose, or the one that a marker does."""
        chosen = only or options.read(self.config, "profile")
        if chosen not in options.PROFILE_CHOICES:
            remedy = f"choose one of {', '.join(options.PROFILE_CHOICES)}"
            raise NixprocError(f"the marker nixproc has an unknown profile {chosen!r}", remedy=remedy)
        return list(options.PROFILES) if chosen == "all" else [chosen]

    def unavailable_reason_of(self, profile: str) -> str:
        """Return why a profile cannot be used on the chosen machine, or an empty text."""
        return no_accounts_reason(self.config, self.machine) if profile == PRIVILEGED else ""

    def skip_marks(
        self, manager: Manager | None, machine: type[Machine], profile_reason: str
    ) -> list[pytest.MarkDecorator]:
        """Return the mark that skips a test with the reason why a machine, a manager or a profile cannot be had here.

        What can be had is looked at once in a session: an engine has to be asked, and there are thousands of tests.
        """
        key = (manager.name if manager else "", machine.name)
        if key not in self._reasons:
            self._reasons[key] = unavailable_here(manager, machine)
        reason = self._reasons[key] or profile_reason
        return [pytest.mark.skip(reason=reason)] if reason else []

    @property
    def machine(self) -> type[Machine]:
        """The kind of machine that the options choose."""
        return self.registry.machine(options.read(self.config, "machine"))

    def managers(self, only: list[str] | None = None) -> list[Manager]:
        """Return the managers that the options choose; ``only`` leaves out others."""
        names = options.read_names(self.config, "manager") or [options.BY_NAME["manager"].default]
        for name in only or ():
            self.registry.manager(name)
        return [manager for manager in self.named(names) if only is None or manager.name in only]

    def named(self, names: Sequence[str]) -> list[Manager]:
        """Return managers by their names, each once; ``all`` stands for every one that is registered."""
        chosen = list(self.registry.managers) if "all" in names else list(dict.fromkeys(names))
        return [self.registry.manager(name) for name in chosen]

    def _point(self, manager: Manager, profile: str, wanted: Mapping[str, Any]) -> Point:
        model, params = wanted.get("model"), wanted.get("params", {})
        which = model if isinstance(model, str) else id(model)
        key = (manager.name, profile, which, json.dumps(params, sort_keys=True, default=repr))
        if key not in self._points:
            machine = options.read(self.config, "machine")
            is_private = options.read(self.config, "network") == "private"
            self._points[key] = Point(manager, machine, profile, is_private, model, params)
        return self._points[key]

    def refuse_missing(self) -> None:
        """Raise a usage error for unknown names, a network that the machine cannot have, and missing requirements."""
        names = options.read_names(self.config, "require")
        try:
            self.managers()
            machine = self.machine
            required = list(self.registry.managers) if "all" in names else names
            reasons = {name: self._unavailable_reason(name, machine) for name in required}
        except NixprocError as error:
            raise pytest.UsageError(str(error)) from error
        if options.read(self.config, "profile") == PRIVILEGED and (reason := self.unavailable_reason_of(PRIVILEGED)):
            raise pytest.UsageError(reason)
        if missing := {name: reason for name, reason in reasons.items() if reason}:
            lines = "\n".join(f"  {name}: {reason}" for name, reason in missing.items())
            raise pytest.UsageError(f"required process managers or machines cannot run here:\n{lines}")
        if options.read(self.config, "network") == "private" and not machine.throwaway:
            remedy = "only a throwaway machine has a network of its own, such as --nixproc-machine=nspawn"
            raise pytest.UsageError(f"--nixproc-network=private: machine {machine.name} has the host's; {remedy}")

    def _unavailable_reason(self, name: str, machine: type[Machine]) -> str:
        """Return why a machine of this name, or a manager on the machine of the options, cannot run here."""
        if name in self.registry.machines:
            return self.registry.machine(name).unavailable_reason()
        return self.registry.manager(name).unavailable_reason(machine)


def no_accounts_reason(config: pytest.Config, machine: type[Machine]) -> str:
    """Return why accounts cannot be created on a machine; an empty text if they can, as on a throwaway one."""
    if machine.throwaway:
        return ""
    flag = options.BY_NAME["disposable-host"].flag
    conditions = {
        "root": os.geteuid() == 0,
        f"{flag}, which says that accounts may be created on it": options.read_flag(config, "disposable-host"),
    }
    missing = " and ".join(condition for condition, is_met in conditions.items() if not is_met)
    return missing and f"the profile {PRIVILEGED} on machine {machine.name} needs {missing}"


def unavailable_here(manager: Manager | None, machine: type[Machine]) -> str:
    """Return which of a machine and a manager cannot be had here, and why; an empty text if both can."""
    reasons = {f"machine {machine.name}": machine.unavailable_reason()}
    if manager is not None:
        reasons[manager.name] = manager.unavailable_reason(machine)
    return next((f"{name} cannot run here: {reason}" for name, reason in reasons.items() if reason), "")
