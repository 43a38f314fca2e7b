"""The contract of a process manager: what its one file has to hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.machines.api import Accounts, Facts, Listener, Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.model.process import ManagedProcess, Mode
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel

PID_DIGITS: Final = 10
LARGEST_PID: Final = (1 << 31) - 1
"""Of the type that pids have (``pid_t``); the kernel is not asked about larger numbers."""


@dataclass(frozen=True)
class File:
    """A generated file, or a part of one; the path is relative to the configuration's directory.

    Parts of the same path are joined: those of the system as a whole, then those of the units in the model's order.
    """

    path: str
    content: str
    mode: int = 0o644


def joined(parts: Iterable[File]) -> list[File]:
    """Return whole files, made of their parts."""
    contents: dict[tuple[str, int], list[str]] = {}
    for part in parts:
        contents.setdefault((part.path, part.mode), []).append(part.content)
    return [File(path, "".join(texts), mode) for (path, mode), texts in contents.items()]


@dataclass(frozen=True)
class Link:
    """A generated symbolic link; path and target are relative."""

    path: str
    target: str


@dataclass(frozen=True)
class Target:
    """What a generator may know about the place where its files will be used.

    ``directory`` is where the files are written; ``identity`` names the deployment, unlike any other of the machine;
    ``tags`` go into every process's environment, so that strays can be found; ``stop_seconds`` is how long a process
    may take to stop. ``accounts`` are those that the machine has of the ones that the model names: when files are
    written, all of them; in a draft, only those that exist already.
    """

    state: StateDirs
    directory: str
    identity: str = "deployment"
    facts: Facts = field(default_factory=Facts)
    force_disable_user_change: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: float = 10.0
    accounts: Accounts = field(default_factory=Accounts)

    def user_of(self, process: ManagedProcess) -> str | None:
        """Return the user to switch to, if any."""
        return None if self.force_disable_user_change else process.user

    def pid_file(self, process: ManagedProcess) -> str:
        """Return the process's PID file."""
        return process.pid_file_in(self.state)

    def log_file(self, process: ManagedProcess) -> str:
        """Return the file for the process's output."""
        return process.log_file_in(self.state, force_disable_user_change=self.force_disable_user_change)

    def environment(self, process: ManagedProcess, key: str) -> dict[str, str]:
        """Return the whole environment of a process: PATH, what it declares, and our tags.

        The process's own packages come before the machine's: what a model names must not be shadowed by the host's
        software of the same name.
        """
        path = [f"{package}/bin" for package in process.path] + list(self.facts.base_path)
        return {"PATH": ":".join(path), **process.environment, **self.tags, "NIXPROC_INSTANCE": key}


@dataclass(frozen=True)
class Unit:
    """One instance as a manager knows it: the name it goes by, its generated files, and where to look.

    ``key`` is the instance's name in the model. ``log_file`` is where its output can be read: a manager that keeps logs
    itself, and overrides :meth:`Driver.log`, names the command that shows them.
    ``pid_file`` is set when the running process is found by it; then it has to exist while the process runs.
    """

    name: str
    mode: Mode
    log_file: str
    pid_file: str | None
    files: tuple[File, ...]
    links: tuple[Link, ...] = ()
    key: str = ""


@dataclass(frozen=True)
class Status:
    """What a manager says about one unit.

    A unit that neither runs nor ``has_ended`` was not started, or has only just been. ``exit_status`` is minus a
    signal's number for a killed process, None where the manager cannot know it.
    """

    running: bool
    has_ended: bool = False
    pid: int | None = None
    exit_status: int | None = None
    text: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What a manager honours, prefers and needs; the documentation's table is made of this.

    ``unsupported`` maps parameters of a managed process to the reason why the manager refuses them. ``contains`` says
    that nothing which an instance has started outlives it: what it leaves behind ends with it, and is no leak.
    ``stops_groups`` says that a stop reaches all of a foreground program's process group, its children included.
    ``dysnomia_module`` is the module of Dysnomia that activates what the manager's generator makes.
    """

    prefers: Mode
    platforms: tuple[str, ...] = ("linux", "darwin", "freebsd")
    unsupported: Mapping[str, str] = field(default_factory=dict)
    contains: bool = False
    stops_groups: bool = False
    dysnomia_module: str = ""
    note: str = ""


class Generator(ABC):
    """Makes a manager's files from a model; pure: needs no tool, no clock and no disk."""

    @abstractmethod
    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the unit of one instance; raises :class:`~pytest_nixproc.errors.Unsupported`."""

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:  # noqa: ARG002 - most need none
        """Return the files that belong to the system as a whole."""
        return ()


class Driver(ABC):
    """Makes a manager do things with units whose files are in place; it builds no text.

    A driver keeps nothing that it could not read back from the machine: one made anew can stop what another started.
    """

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def open(self, deadline: Deadline) -> None:  # noqa: B027 - a manager that always runs needs none
        """Bring the manager itself up."""

    def close(self, deadline: Deadline) -> None:  # noqa: B027 - see open
        """Bring the manager itself down; called when no unit is left, and then harmless when called again."""

    def remains(self) -> Sequence[str]:
        """Return what the manager still has of the deployment where neither processes nor files of the machine show it.

        Asked when the manager is closed, and the deployment's directory may be gone already.
        """
        return ()

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:  # noqa: B027 - see open
        """Take notice of other files: units that are not in both have been stopped, or are to be started."""

    @abstractmethod
    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Start units side by side; return what went wrong, by unit name. Whether they are ready is not waited for."""

    @abstractmethod
    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Ask units to stop, and wait for their processes' real end or the deadline."""

    @abstractmethod
    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Ask a unit to read its configuration again."""

    @abstractmethod
    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Return what the manager says of each unit, by its name."""

    def missing(self, unit: Unit) -> str:
        """Return what an instance that serves already still owes its manager; most owe the PID file of a daemon.

        Some listen before they write it, and a manager could not find them then.
        """
        if unit.pid_file is None or self.process_named(unit, self.machine.read(unit.pid_file) or b""):
            return ""
        return f"PID file {unit.pid_file} is not written"

    def process_named(self, unit: Unit, content: bytes) -> int | None:  # noqa: ARG002 - most know one PID namespace
        """Return the process of the machine that the content of a unit's PID file names."""
        return pid_in(content)

    def members(self, unit: Unit) -> Sequence[int]:  # noqa: ARG002 - most know no others
        """Return processes of a unit, whether or not they are below its main process."""
        return ()

    def strays(self, tag: str) -> list[int]:
        """Return the deployment's processes, which have ``NAME=VALUE`` in their environment, and their offspring.

        A manager whose processes do not descend from ours has to look through the whole machine.
        """
        return self.machine.strays(tag)

    def exit_status(self, unit: Unit, pid: int) -> int | None:  # noqa: ARG002 - the machine saw most ends itself
        """Return how a unit's main process has ended, as far as is known: a status, or minus a signal's number."""
        return self.machine.exit_status(pid)

    def listeners(self, statuses: Mapping[str, Status]) -> Sequence[Listener]:  # noqa: ARG002 - most hide none
        """Return the ports of units that the machine itself shows as somebody else's: what is forwarded to them.

        ``statuses`` are those of the units that are meant, by their names.
        """
        return ()

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        return self.machine.size(unit.log_file)

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return what a unit has logged from byte ``start`` on."""
        return (self.machine.read(unit.log_file, start) or b"").decode(errors="replace")


def pid_in(content: bytes) -> int | None:
    """Return the process that the content of a PID file names; 0 is none, but would be all of ours for a signal."""
    digits = content.strip().lstrip(b"0")
    pid = int(digits) if digits.isdigit() and len(digits) <= PID_DIGITS else None
    return pid if pid is not None and pid <= LARGEST_PID else None


def nothing_in_the_way(machine: type[Machine]) -> str:  # noqa: ARG001 - most need nothing of it
    """Name no obstacle."""
    return ""


@dataclass(frozen=True)
class Manager:
    """One process manager, as its module offers it to the registry.

    ``obstacle`` says why the manager cannot run here on a kind of machine, with the remedy, or returns an empty text.
    ``fold`` makes of a process's name what the manager makes of it, where it cannot keep all names apart.
    """

    name: str
    generator: Callable[[], Generator]
    driver: Callable[[Machine, Target], Driver]
    capabilities: Capabilities
    obstacle: Callable[[type[Machine]], str] = nothing_in_the_way
    fold: Callable[[str], str] = str


def apply_override(
    manager: str,
    process: ManagedProcess,
    parameters: dict[str, Any],
    *,
    part: str = "",
    spelling: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Return the generated parameters as the process overrides them for a manager, or for one part of it.

    A mapping is merged in deeply (nested mappings merge, all else is replaced); a function gets the parameters and
    returns all of them anew. ``spelling`` turns the names that users write into those of the parameters.
    """
    override: Any = process.overrides.get(manager, {})
    override = override.get(part, {}) if part else override
    if callable(override):
        return dict(override(deepcopy(parameters)))
    return merge(parameters, {spelling(name): value for name, value in override.items()})


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` merged in deeply."""
    merged = dict(base)
    for name, change in changes.items():
        old = merged.get(name)
        merged[name] = merge(old, change) if isinstance(old, Mapping) and isinstance(change, Mapping) else change
    return merged


def refuse_unsupported(manager: str, process: ManagedProcess, capabilities: Capabilities) -> None:
    """Raise for the first parameter that a process sets and the manager cannot express."""
    for name, reason in capabilities.unsupported.items():
        if getattr(process, name):
            raise Unsupported(manager, process.name, f"{name} is set, and {reason}")


def ask_known(parameters: Mapping[str, Any], known: Iterable[str], manager: str, process: ManagedProcess) -> None:
    """Raise for an override that addresses a parameter which the manager's generator does not have."""
    for name in parameters.keys() - set(known):
        remedy = f"known are {', '.join(sorted(known))}"
        raise Unsupported(manager, process.name, f"its overrides set {name!r}, which is no parameter", remedy=remedy)
