"""What a rule finds, and how rules are declared."""

from __future__ import annotations

import gc
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from pytest_nixproc.checks.claims import Claim, Inventory, Neighbour
from pytest_nixproc.errors import UnknownName, Unsupported
from pytest_nixproc.machines.api import Account, Listener, Sight
from pytest_nixproc.managers.api import Status, Target, Unit
from pytest_nixproc.model.accounts import Said, said_about_accounts
from pytest_nixproc.model.places import Location
from pytest_nixproc.model.system import ProcessesModel

Severity = Literal["error", "warning"]

UNSAID: Final = object()
"""Stands for a value where only its place matters."""


@dataclass(frozen=True)
class Origin:
    """Where one value of a finding comes from: the parameter, as a path in the model, and the line that says so."""

    path: str
    value: Any = UNSAID
    location: Location | None = None

    def __str__(self) -> str:
        value = "" if self.value is UNSAID else f" = {self.value!r}"
        return f"{self.path}{value}{f' ({self.location})' if self.location else ''}"


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found: which instances, which resource, where its values come from, what to change.

    ``origins`` may be texts, where no more is known. ``resource`` names the thing in dispute: ``tcp port 80``.
    """

    code: str
    severity: Severity
    problem: str
    instances: tuple[str, ...]
    origins: tuple[Origin | str, ...] = ()
    remedy: str = ""
    resource: str = ""

    def __str__(self) -> str:
        origins = "".join(f"\n    {origin}" for origin in self.origins)
        remedy = f"\n    to mend it: {self.remedy}" if self.remedy else ""
        return f"{self.code} {self.severity}: {self.problem}{origins}{remedy}"


def origin_of(model: ProcessesModel, instance: str, place: str, value: Any = UNSAID) -> Origin:
    """Return a value of a model as an origin; ``place`` is relative to the instance."""
    return Origin(f"processes.{instance}.{place}", value, model.locate(instance, place))


@dataclass(frozen=True)
class Plan:
    """What static rules look at: a model, and where it will be deployed.

    ``refusals`` are the errors of values that the manager cannot express, by instance. ``fold`` changes a process's
    name as its manager does. ``neighbours`` are the other deployments of the machine, or other models that are checked
    together.
    """

    model: ProcessesModel
    target: Target
    refusals: Mapping[str, Unsupported] = field(default_factory=dict)
    fold: Callable[[str], str] = str
    neighbours: Sequence[Neighbour] = ()

    @cached_property
    def inventory(self) -> Inventory:
        """What the instances claim, made in one pass over the model and shared by all rules."""
        return Inventory.of(self.model, self.target)

    @cached_property
    def said(self) -> Sequence[Said]:
        """What the instances say about accounts, likewise."""
        return tuple(said_about_accounts(self.model))


@dataclass(frozen=True)
class ToldPidFile:
    """A PID file that a program is told to write, as it was found: who is told, and what it holds.

    ``content`` is None where there is none; ``owner`` the instance of the living process that it names. It
    ``is_required`` when it was asked for by an option; with a variable, many programs write one as daemons only.
    """

    path: str
    claims: Sequence[Claim]
    content: str | None
    owner: str | None
    is_required: bool

    @property
    def instances(self) -> tuple[str, ...]:
        """The instances that are told."""
        return tuple(dict.fromkeys(claim.instance for claim in self.claims))

    @property
    def is_right(self) -> bool:
        """Tell whether it names a process of who is told, or need not be there."""
        return not self.is_required if self.content is None else self.owner in self.instances


@dataclass(frozen=True)
class Trace:
    """A path that has changed since the system began to start, with the clue which says whose doing it is."""

    instance: str
    path: str
    clue: str


@dataclass(frozen=True)
class Snapshot:
    """What live rules look at: a running system, as it was at one moment.

    ``owners`` has the instance whose process holds a listener, None for foreign ones. ``pid_files`` holds the content
    of each PID file that exists, ``named`` the process that it names, by instance. ``members`` has the instance of each
    of these processes that lives, ``commands`` command lines by pid. ``accounts`` has the accounts to which the manager
    is to switch, by instance, and ``run_as`` the user and group of the main processes. ``sights`` are all processes,
    each with its instance; ``changed`` the paths that instances are told and that have changed since the system began
    to start; ``own_places`` the directories that it may write to. ``client_ports`` are those that the machine gives to
    clients, ``told_pid_files`` the PID files that programs write for themselves, ``traces`` the changes in places where
    all programs write.
    """

    model: ProcessesModel
    units: Mapping[str, Unit]
    statuses: Mapping[str, Status]
    owners: Mapping[Listener, str | None]
    pid_files: Mapping[str, str]
    named: Mapping[str, int]
    members: Mapping[int, str]
    commands: Mapping[int, str]
    accounts: Mapping[str, Account] = field(default_factory=dict)
    run_as: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sights: Sequence[tuple[str, Sight]] = ()
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own_places: tuple[str, ...] = ()
    client_ports: Container[int] = ()
    told_pid_files: Sequence[ToldPidFile] = ()
    traces: Sequence[Trace] = ()


@dataclass(frozen=True)
class Departure:
    """What leak rules look at: one instance that was stopped, what is left of it, and what became of the others.

    ``when`` says when this was seen, in words. ``processes`` are those of the instance that still run, with their
    commands; ``held`` its ports that are held by others (``TCP port 80``, and who); ``pid_files`` and ``sockets`` what
    still exists. ``ended`` are other instances whose main process, which is named, has ended; ``unready`` those that
    run and are not ready, with the reason.
    """

    instance: str
    when: str
    processes: Mapping[int, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    pid_files: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    ended: Mapping[str, int] = field(default_factory=dict)
    unready: Mapping[str, str] = field(default_factory=dict)


def nothing(_: object) -> Iterable[Finding]:
    """Find nothing: the half of a rule that it does not have."""
    return ()


@dataclass(frozen=True)
class Rule:
    """One rule: its code, what it asserts, and the function that finds where that does not hold.

    ``static`` looks at a model before anything is started, ``live`` at a running system, ``leak`` at the stop of one
    instance, and ``constructor`` at the instances that a constructor makes of different parameters. ``explanation`` is
    for the documentation: what the rule looks at, why that matters, and what it cannot know.
    """

    code: str
    asserts: str
    static: Callable[[Plan], Iterable[Finding]] = nothing
    live: Callable[[Snapshot], Iterable[Finding]] = nothing
    leak: Callable[[Departure], Iterable[Finding]] = nothing
    constructor: Callable[[Any], Iterable[Finding]] = nothing
    severity: Severity = "error"
    explanation: str = ""


def static_findings(rules: Iterable[Rule], plan: Plan) -> list[Finding]:
    """Hold rules against a plan.

    The search for cyclic garbage is paused meanwhile: rules make none, and it would go through the whole model again
    and again, which takes as long as the rules do.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        return [finding for rule in rules for finding in rule.static(plan)]
    finally:
        if is_enabled:
            gc.enable()


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that forbid a deployment."""
    return [finding for finding in findings if finding.severity == "error"]


def chosen(rules: Iterable[Rule], select: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[Rule]:
    """Return the rules to apply; both lists name codes or beginnings of codes, and the longer one that fits decides.

    Without ``select`` all rules are selected. Raises :class:`~pytest_nixproc.errors.UnknownName` for a beginning that
    no code has.
    """
    rules, wanted, unwanted = list(rules), tuple(select) or ("",), tuple(ignore)
    for prefix in (*wanted, *unwanted):
        if not any(rule.code.startswith(prefix) for rule in rules):
            raise UnknownName("check", prefix, (rule.code for rule in rules))
    return [rule for rule in rules if fit(rule.code, wanted) > fit(rule.code, unwanted)]


def fit(code: str, prefixes: Iterable[str]) -> int:
    """Return the length of the longest of some beginnings that a code has; -1 when it has none."""
    return max((len(prefix) for prefix in prefixes if code.startswith(prefix)), default=-1)
