"""The contract of a process manager: its capabilities, its generator and its driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.launch import Launch, launch_of
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.commands import Spawn, describe_failure
from pytest_nixproc.values.machine import Listener
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Mode, Status, Unit

PID_DIGITS: Final = 10
LARGEST_PID: Final = (1 << 31) - 1
"""The largest number of the type that pids have (``pid_t``); the kernel is not asked about larger ones."""


@dataclass(frozen=True)
class Capabilities:
    """The capabilities of a process manager; the documentation's table of managers is made of this."""

    prefers: Mode
    """The mode, ``foreground`` or ``daemon``, in which programs run that support both."""

    platforms: tuple[str, ...] = ("linux", "darwin", "freebsd")
    """The systems that it runs on, by their names in ``sys.platform`` without a version."""

    unsupported: Mapping[str, str] = field(default_factory=dict)
    """The parameters of a managed process that the manager refuses, each with the reason."""

    contains: bool = False
    """Whether the manager ends all processes of an instance together with it, so that none can be left behind."""

    executes_files: bool = True
    """Whether the manager executes generated files where they lie, so that their file system has to allow it."""

    stops_groups: bool = False
    """Whether a stop reaches all of a foreground program's process group, its children included."""

    dysnomia_module: str = ""
    """The module of Dysnomia that activates the files which the generator makes; empty for none."""

    note: str = ""
    """A remark for users."""


class Generator(ABC):
    """The generator of a manager's files from a model; it is pure: it needs no tool, no clock and no disk."""

    @abstractmethod
    def generate(self, launch: Launch) -> Unit:
        """Return the unit of one instance; raises :class:`~pytest_nixproc.errors.Unsupported`."""

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:  # noqa: ARG002 - most need none
        """Return the files that belong to the system as a whole."""
        return ()


class Driver(ABC):
    """The driver of a manager, which starts, watches and stops units whose files are in place; it generates no text.

    A driver keeps nothing that it could not read back from the machine: one made anew can stop what another started.
    """

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def command(self, *argv: str, output: str | None = None) -> Spawn:
        """Return a command that runs one of the manager's programs, found by name, with the deployment's tags."""
        program = self.machine.files.which(argv[0]) or argv[0]
        return Spawn((program, *argv[1:]), {"PATH": self.machine.facts.path_variable, **self.target.tags}, output)

    def succeed(self, unit: Unit, command: Spawn, deadline: Deadline) -> None:
        """Run a command for a unit; raises :class:`~pytest_nixproc.errors.CommandFailed` with how it has ended."""
        if (status := self.machine.processes.run([command], deadline)[0]) != 0:
            raise CommandFailed(f"{unit.name}: {describe_failure(command.argv, status)}")

    def open(self, deadline: Deadline) -> None:  # noqa: B027 - a manager that always runs needs none
        """Start the manager itself."""

    def close(self, deadline: Deadline) -> None:  # noqa: B027 - see open
        """Stop the manager itself, when no unit is left; another call then is harmless."""

    def remains(self) -> Sequence[str]:
        """Return descriptions of the deployment's objects that the manager still has, such as its containers.

        Objects count that are not seen among the processes of the machine and the files of the deployment.

        Asked when the manager is closed, and the deployment's directory may be gone already.
        """
        return ()

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:  # noqa: B027 - see open
        """Take over changed files: units only in ``old`` have been stopped, units only in ``new`` are started later."""

    @abstractmethod
    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Start units side by side, without waiting until they are ready; return error texts, by unit name."""

    @abstractmethod
    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Ask units to stop, and wait for their processes' real end or the deadline."""

    @abstractmethod
    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Ask a unit to read its configuration again."""

    @abstractmethod
    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Return the status that the manager reports for each unit, by unit name."""

    def unmet(self, unit: Unit) -> str:
        """Return why a unit that already answers is not ready yet, or an empty text.

        By default, a daemon is not ready before it has written its PID file: some listen before that, and a manager
        could not find them then.
        """
        if unit.pid_file is None or self.process_named(unit, self.machine.files.read(unit.pid_file) or b""):
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
        return self.machine.processes.strays(tag)

    def exit_status(self, unit: Unit, pid: int) -> int | None:  # noqa: ARG002 - the machine saw most ends itself
        """Return how a unit's main process has ended, as far as is known: a status, or minus a signal's number."""
        return self.machine.processes.exit_status(pid)

    def listeners(self, statuses: Mapping[str, Status]) -> Sequence[Listener]:  # noqa: ARG002 - most hide none
        """Return the ports that are forwarded to units, which the machine shows as ports of other processes.

        ``statuses`` are those of the units that are meant, by their names.
        """
        return ()

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        return self.machine.files.size(unit.log_file)

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return a unit's log from byte ``start`` on."""
        return (self.machine.files.read(unit.log_file, start) or b"").decode(errors="replace")


def pid_in(content: bytes) -> int | None:
    """Return the pid that the content of a PID file names; None for 0, and for anything that is no pid.

    A signal to process 0 would reach our own process group (kill(2)).
    """
    digits = content.strip().lstrip(b"0")
    pid = int(digits) if digits.isdigit() and len(digits) <= PID_DIGITS else None
    return pid if pid is not None and pid <= LARGEST_PID else None


def daemon_of(unit: Unit, machine: Machine) -> int | None:
    """Return the process that a unit's PID file names: the daemon behind a foreground proxy; None where it has none."""
    return pid_in(machine.files.read(unit.pid_file) or b"") if unit.pid_file else None


def always_available(machine: type[Machine]) -> str:  # noqa: ARG001 - most need nothing of it
    """Return an empty text: a manager without requirements can run anywhere."""
    return ""


@dataclass(frozen=True)
class Manager:
    """One process manager, as its module offers it to the registry."""

    name: str
    """The name by which options and overrides choose it."""

    generator: Callable[[], Generator]
    driver: Callable[[Machine, Target], Driver]
    """Makes the driver of one deployment, on its machine."""

    capabilities: Capabilities
    unavailable_reason: Callable[[type[Machine]], str] = always_available
    """Returns why the manager cannot run here on a kind of machine, with the remedy; an empty text if it can."""

    normalize_name: Callable[[str], str] = str
    """Returns a process's name as the manager changes it; two processes must not have the same result."""

    def launch(self, key: str, model: ProcessesModel, target: Target) -> Launch:
        """Return the launch of an instance at a place; raises :class:`~pytest_nixproc.errors.Unsupported`."""
        launch = launch_of(self.name, self.capabilities.prefers, key, model, target)
        for name, reason in self.capabilities.unsupported.items():
            if getattr(launch.process, name):
                raise launch.refusal(f"{name} is set, and {reason}")
        return launch

    def unit(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the unit of one instance at a place; raises :class:`~pytest_nixproc.errors.Unsupported`."""
        return self.generator().generate(self.launch(key, model, target))
