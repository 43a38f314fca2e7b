"""What a rule finds, and how rules are declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_nixproc.machines.api import Account, Listener
from pytest_nixproc.managers.api import Status, Target, Unit
from pytest_nixproc.model.system import ProcessesModel

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found: which instances, which resource, where its values come from, what to change."""

    code: str
    severity: Severity
    problem: str
    instances: tuple[str, ...]
    origins: tuple[str, ...] = ()
    remedy: str = ""

    def __str__(self) -> str:
        origins = "".join(f"\n    {origin}" for origin in self.origins)
        remedy = f"\n    to mend it: {self.remedy}" if self.remedy else ""
        return f"{self.code} {self.severity}: {self.problem}{origins}{remedy}"


@dataclass(frozen=True)
class Plan:
    """What static rules look at: a model, and where it will be deployed."""

    model: ProcessesModel
    target: Target


@dataclass(frozen=True)
class Snapshot:
    """What live rules look at: a running system, as it was at one moment.

    ``owners`` tells for each listener which instance's process holds it, None for foreign ones; ``pid_files`` holds
    the content of each PID file that exists, ``named`` the process that it names, ``members`` whose the living are.
    ``accounts`` has who the processes of instances are to run as, where the manager switches, and ``run_as`` the user
    and group that their main processes do run as.
    """

    model: ProcessesModel
    units: Mapping[str, Unit]
    statuses: Mapping[str, Status]
    listeners: tuple[Listener, ...]
    owners: Mapping[Listener, str | None]
    pid_files: Mapping[str, str]
    named: Mapping[str, int]
    members: Mapping[int, str]
    commands: Mapping[int, str]
    accounts: Mapping[str, Account] = field(default_factory=dict)
    run_as: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def nothing(_: object) -> Iterable[Finding]:
    """Find nothing: the half of a rule that it does not have."""
    return ()


@dataclass(frozen=True)
class Rule:
    """One rule: its code, what it asserts, and the function that finds where that does not hold.

    ``static`` looks at a model before anything is started, ``live`` at a running system.
    """

    code: str
    asserts: str
    static: Callable[[Plan], Iterable[Finding]] = nothing
    live: Callable[[Snapshot], Iterable[Finding]] = nothing


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that forbid a deployment."""
    return [finding for finding in findings if finding.severity == "error"]
