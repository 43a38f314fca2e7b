"""The contract of a process manager: its capabilities, its generator and its driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.launch import Launch, launch_of, note_of
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.commands import Spawn, describe_failure
from pytest_nixproc.values.machine import Listener
from pytest_nixproc.values.pid_files import described, pid_in
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Mode, Status, Unit
from pytest_nixproc.values.value import Value


class Capabilities(Value):
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

    example_override: Mapping[str, Any] = field(default_factory=dict)
    """An override that the manager takes: one name, below those of parts if it has any, with a value."""

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
        """Apply changed files: units only in ``old`` have been stopped, units only in ``new`` are started later."""

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
        could not find them then. Nor is it while its foreground proxy does not know it: what is asked to stop before
        its starter has ended may be told so too early.
        """
        if unit.pid_file is None:
            return ""
        content = self.machine.files.read(unit.pid_file)
        pid = self.process_named(unit, content or b"")
        if pid is None or not self.machine.processes.identity(pid):
            return told_by(unit, content, has_ended=True)
        return awaited_by_proxy(unit, self.machine.files.read(note_of(unit.name, self.target)))

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


def told_by(unit: Unit, content: bytes | None, *, has_ended: bool) -> str:
    """Return in words what a unit's PID file holds, and whether the process that it names, if any, has ended."""
    ending = ", and that process has ended" if has_ended and pid_in(content or b"") else ""
    return f"PID file {unit.pid_file} {described(content)}{ending}"


def awaited_by_proxy(unit: Unit, note: bytes | None) -> str:
    """Return what a foreground proxy whose note is empty waits for, or an empty text; some daemons have no proxy."""
    waits = f"its foreground proxy waits for the end of its starter, and for PID file {unit.pid_file}"
    return waits if note is not None and pid_in(note) is None else ""


def content_for(unit: Unit, machine: Machine, target: Target) -> bytes:
    """Return the content that names the daemon of a unit behind a foreground proxy: the proxy's note, if it makes one.

    Else it is that of the PID file. It is empty where nothing is known of a daemon.
    """
    if unit.pid_file is None:
        return b""
    note = machine.files.read(note_of(unit.name, target))
    return (machine.files.read(unit.pid_file) or b"") if note is None else note


def daemon_of(unit: Unit, machine: Machine, target: Target) -> int | None:
    """Return the daemon of a unit behind a foreground proxy; None where it has none, and while none is known."""
    return pid_in(content_for(unit, machine, target))


def always_available(machine: type[Machine]) -> str:  # noqa: ARG001 - most need nothing of it
    """Return an empty text: a manager without requirements can run anywhere."""
    return ""


class Belonging(Value):
    """Something that a manager has of a deployment and that says so itself, by a label: never by its name."""

    what: str
    root: str
    """The directory of the deployment, which need not exist any more; empty if that is not said."""

    owner: str
    """Who used the deployment, in the words of :attr:`~pytest_nixproc.values.target.Target.owner`."""

    remedy: str
    """The command by which people remove it."""

    remove: Callable[[], None]


def no_warm_up(machine: Machine) -> None:
    """Do nothing: most managers start at once, or run already."""


def no_belongings() -> Sequence[Belonging]:
    """Return nothing: most managers end with those who have started them."""
    return ()


class Manager(Value):
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

    belongings: Callable[[], Sequence[Belonging]] = no_belongings
    """Returns what there is of any deployment, for one that shares its machine and outlives everybody."""

    warm_up: Callable[[Machine], None] = no_warm_up
    """Has a machine begin with what the manager's own start needs, before a deployment has been planned."""

    def launch(self, key: str, model: ProcessesModel, target: Target) -> Launch:
        """Return what the manager needs to launch an instance; raises :class:`~pytest_nixproc.errors.Unsupported`."""
        launch = launch_of(self.name, self.capabilities.prefers, key, model, target)
        for name, reason in self.capabilities.unsupported.items():
            if getattr(launch.process, name):
                raise launch.refusal(f"{name} is set, and {reason}")
        return launch

    def unit(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the unit of one instance for a target; raises :class:`~pytest_nixproc.errors.Unsupported`."""
        launch = self.launch(key, model, target)
        unit = self.generator().generate(launch)
        return replace(
            unit,
            stop_signal=launch.stop_signal,
            reload_signal=launch.reload_signal,
            state_directories=launch.directories,
            state_files=launch.files,
        )
