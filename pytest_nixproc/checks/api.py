"""The contract of rules: how they are declared, and the data that they look at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import Any, Final

from pytest_nixproc.checks.claims import Inventory, OtherDeployment, ResourceClaim
from pytest_nixproc.errors import UnknownName, Unsupported
from pytest_nixproc.model.accounts import AccountClaim, account_claims
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.findings import UNSAID, Finding, Origin, Severity
from pytest_nixproc.values.machine import Account, Listener, ProcessInfo
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit
from pytest_nixproc.values.value import Value


def origin_of(model: ProcessesModel, instance: str, value_path: str, value: Any = UNSAID) -> Origin:
    """Return the origin (path, value, file and line) of a model's value; ``value_path`` is relative to the instance."""
    return Origin(f"processes.{instance}.{value_path}", value, model.locate(instance, value_path))


class RuleInput(Value):
    """The data that static rules look at: a model, and the place where it will be deployed."""

    model: ProcessesModel
    target: Target
    refusals: Mapping[str, Unsupported] = field(default_factory=dict)
    """Errors for values that the manager cannot express, by instance."""

    normalize_name: Callable[[str], str] = str
    """Changes a process's name as its manager does."""

    others: Sequence[OtherDeployment] = ()
    """The other deployments of the machine, or other models that are checked together."""

    managers: Collection[str] = ()
    """The names of the managers that are installed."""

    known_claims: Inventory | None = None
    """The claims of the instances, if they have been found before."""

    @cached_property
    def inventory(self) -> Inventory:
        """The claims of the instances, found in one pass over the model and shared by all rules."""
        return self.known_claims or Inventory.of(self.model, self.target)

    @cached_property
    def account_claims(self) -> Sequence[AccountClaim]:
        """The attributes that instances give to accounts, found once and shared by all rules."""
        return tuple(account_claims(self.model))


class PidFileState(Value):
    """A PID file whose path is passed to programs, as it was found on the machine."""

    path: str
    claims: Sequence[ResourceClaim]
    """The values that name the file, each with its instance."""

    content: str | None
    """Content of the file; None if it does not exist or cannot be read."""

    owner: str | None
    """Instance of the living process that the file names; None without one."""

    is_required: bool
    """Whether the file must exist: an option names it, not only a variable, and it lies in the state directories.

    Many programs that learn the path from a variable write the file only when they run as daemons.
    """

    @property
    def instances(self) -> tuple[str, ...]:
        """The instances to which the path is passed, each once."""
        return tuple(dict.fromkeys(claim.instance for claim in self.claims))

    @property
    def is_right(self) -> bool:
        """Tell whether the file names a process of one of its instances, or is absent and not required."""
        return not self.is_required if self.content is None else self.owner in self.instances


class FileChange(Value):
    """A path that has changed since the system began to start, with the instance that seems to have changed it."""

    instance: str
    path: str
    clue: str
    """The reason to suspect this instance, in words."""


class Snapshot(Value):
    """The data that live rules look at: a running system, as it was at one moment."""

    model: ProcessesModel
    units: Mapping[str, Unit]
    """Units by instance."""

    statuses: Mapping[str, Status]
    """Status of each unit, by instance."""

    owners: Mapping[Listener, str | None]
    """Listeners, each with the instance whose process holds it; None for a foreign process."""

    pid_files: Mapping[str, str]
    """Content of each PID file that exists, by instance."""

    named: Mapping[str, int]
    """Pid that each PID file in ``pid_files`` names, by instance."""

    members: Mapping[int, str]
    """Living processes among those in ``named``, by pid, each with the instance that it belongs to."""

    commands: Mapping[int, str]
    """Command lines of foreign processes that hold ports, by pid."""

    accounts: Mapping[str, Account] = field(default_factory=dict)
    """Accounts to which the manager is to switch, by instance."""

    run_as: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Effective uid and gid of the main processes, by instance."""

    processes: Sequence[tuple[str, ProcessInfo]] = ()
    """All processes of the system, each with its instance."""

    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Claimed paths outside the state that have changed since the system began to start, by instance."""

    own_places: tuple[str, ...] = ()
    """Directories that the system may write to, with and without the symbolic links on the way to them."""

    directories: Mapping[str, str] = field(default_factory=dict)
    """Working directories that the model gives, without symbolic links, by instance."""

    client_ports: Container[int] = ()
    """The machine's ephemeral ports, which the kernel gives to clients."""

    referenced_pid_files: Sequence[PidFileState] = ()
    """PID files that programs write for themselves."""

    file_changes: Sequence[FileChange] = ()
    """Changes in directories where all programs write."""

    may_be_down: Container[str] = ()
    """Instances that need not run: a test has stopped them, their end was reported, or they may end by themselves."""


class StopReport(Value):
    """The data that leak rules look at: the stop of one instance, its leftovers, and the state of other instances."""

    instance: str
    when: str
    """When this was seen, in words."""

    processes: Mapping[int, str] = field(default_factory=dict)
    """Processes of the instance that still run: their commands, by pid."""

    held: Mapping[str, str] = field(default_factory=dict)
    """Ports of the instance that others hold: the holders in words, by port (``TCP port 80``)."""

    pid_files: tuple[str, ...] = ()
    """PID files of the instance that still exist."""

    sockets: tuple[str, ...] = ()
    """Sockets of the instance that still exist."""

    ended: Mapping[str, int] = field(default_factory=dict)
    """Other instances whose main process has ended, each with its pid."""

    unready: Mapping[str, str] = field(default_factory=dict)
    """Other instances that run and are not ready, each with the reason."""


class EndReport(Value):
    """The data that rules about ends look at: the main process of one instance has ended, and nobody asked for it."""

    instance: str
    how: str
    """How it has ended, in words: ``ended with status 1``."""

    seconds: float | None
    """Seconds between its readiness and the moment when the end was seen; None if it never was ready."""

    is_back: bool
    """Whether the instance runs again."""

    status: str
    """The words of its manager."""


NOT_RUNNING: Final = "NP201"
"""The rule that tells of an end as well as NP215, which is about those between the looks at a running system."""


def nothing(_: object) -> Iterable[Finding]:
    """Return no findings; the default for each kind of check that a rule does not define."""
    return ()


class Rule(Value):
    """One rule: its code, its assertion, and the functions that find violations of it."""

    code: str
    asserts: str
    """The statement that must hold."""

    static: Callable[[RuleInput], Iterable[Finding]] = nothing
    """Looks at a model before anything is started."""

    live: Callable[[Snapshot], Iterable[Finding]] = nothing
    """Looks at a running system."""

    leak: Callable[[StopReport], Iterable[Finding]] = nothing
    """Looks at the stop of one instance."""

    end: Callable[[EndReport], Iterable[Finding]] = nothing
    """Looks at an end of one instance that nobody has asked for."""

    constructor: Callable[[Any], Iterable[Finding]] = nothing
    """Looks at the instances that a constructor makes of different parameters."""

    severity: Severity = "error"
    explanation: str = ""
    """For the documentation: the subject of the rule, why it matters, and the limits of what the rule can know."""


def chosen(rules: Iterable[Rule], select: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[Rule]:
    """Return the rules that ``select`` and ``ignore`` leave: both list prefixes of codes, the longest match decides.

    Without ``select`` all rules are selected. Raises :class:`~pytest_nixproc.errors.UnknownName` for a beginning that
    no code has.
    """
    rules, wanted, unwanted = list(rules), tuple(select) or ("",), tuple(ignore)
    for prefix in (*wanted, *unwanted):
        if not any(rule.code.startswith(prefix) for rule in rules):
            raise UnknownName("check", prefix, (rule.code for rule in rules))
    return [rule for rule in rules if fit(rule.code, wanted) > fit(rule.code, unwanted)]


def fit(code: str, prefixes: Iterable[str]) -> int:
    """Return the length of the longest prefix that a code begins with; -1 when it begins with none."""
    return max((len(prefix) for prefix in prefixes if code.startswith(prefix)), default=-1)
