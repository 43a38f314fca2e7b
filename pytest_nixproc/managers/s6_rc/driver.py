"""The driver of s6-rc: it compiles definitions, starts a supervision tree, and has s6-rc change its state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pytest_nixproc.errors import CommandFailed, MachineError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.managers.s6_rc.companions import Companions
from pytest_nixproc.managers.s6_rc.database import Database
from pytest_nixproc.managers.s6_rc.generator import SOURCES, atom, companion
from pytest_nixproc.managers.s6_rc.live import START, STOP, LiveState
from pytest_nixproc.managers.s6_rc.oneshots import Oneshots
from pytest_nixproc.managers.s6_rc.supervision import Supervision, names_of
from pytest_nixproc.managers.s6_rc.tools import ASK_SECONDS, Toolbox
from pytest_nixproc.managers.s6_rc.tree import Tree
from pytest_nixproc.values.commands import OUTPUT_TAIL
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

UPDATE_SECONDS: Final = 60.0
"""An update that is broken off leaves a live state of which s6-rc-update says that it cannot be relied on."""

SENDING: Final = {"TERM": "-t", "INT": "-i", "QUIT": "-q", "HUP": "-h", "USR1": "-1", "USR2": "-2", "WINCH": "-y"}
"""The options of s6-svc that send a signal."""

OWN: Final = frozenset({"s6rc-fdholder", "s6rc-oneshot-runner"})
"""Services that s6-rc adds by itself."""


class S6RcDriver(Driver):
    """The driver that finds its supervision tree by the deployment's directories.

    The deployment decides what is started and stopped, instance by instance. s6-rc takes along what a service needs, or
    what needs it; where that would be somebody else, s6-supervise is told directly, and s6-rc keeps its view.
    """

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._tools = Toolbox(machine, target)
        self._tree = Tree(machine, target, self._tools)
        self._database = Database(machine, target, self._tools)
        self._live = LiveState(machine, target, self._tools)
        self._supervision = Supervision(machine, target, self._live)
        self._oneshots = Oneshots(machine, self._live, self._tree)
        self._companions = Companions(machine, self._live)

    def open(self, deadline: Deadline) -> None:
        """Start s6-svscan, compile the definitions meanwhile, and begin with all services down."""
        self._tools.record()
        pid = self._tree.start()
        database = self._database.compile(deadline)
        self._tree.await_ready(pid, deadline)
        self._database.initialize(database, deadline)

    def close(self, deadline: Deadline) -> None:
        """End s6-svscan with its whole tree, and wait for that."""
        self._tree.end(deadline)

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Compile a new database, and switch the live state to it, without a restart of running services."""
        deadline = self.machine.deadline(UPDATE_SECONDS)
        for directory in definitions(old) - definitions(new):
            self.machine.files.remove(f"{self.target.directory}/{directory}")
        self._database.update(deadline)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Start units by one command, and wait until s6-rc counts them as up: started, or ready if they notify it.

        What has ended already is reported as it is by who waits for it.
        """
        names = names_of(units)
        up, along = self._live.survey(deadline, "-u", list(names.values()))
        known = [unit for unit in units if names[unit.name] in up]
        self._companions.forget()
        self._supervision.forget_stopped(list(names.values()))
        if known:
            # s6-rc counts those as up, too, that have ended by themselves, or were stopped without it.
            statuses = self.status(known)
            ended = [names[unit.name] for unit in known if not statuses[unit.name].running]
            self._live.tell(START, ended, deadline)
        fresh = [name for name in names.values() if name not in up]
        said = self._start(fresh, along - up, deadline) if fresh else ""
        return self._problems(units, said, is_over=not deadline.remaining) if said or known else {}

    def _start(self, names: Sequence[str], along: set[str], deadline: Deadline) -> str:
        """Start services that s6-rc counts as down; return its message if that fails, or an empty text."""
        companions = {companion(name.removesuffix(atom(""))) for name in names} & along
        if not along - companions - set(names) - OWN:
            return self._live.change(deadline, "-u", names)
        self._live.tell(START, [*companions, *names], deadline)
        return ""

    def _problems(self, units: Sequence[Unit], said: str, *, is_over: bool) -> dict[str, str]:
        """Return error texts of units that are not up; once time is over, also of those that are not ready."""
        statuses, names = self.status(units), names_of(units)
        up, _ = self._live.survey(self.machine.deadline(ASK_SECONDS), "-u", list(names.values()))
        return {
            unit.name: "\n".join(filter(None, (statuses[unit.name].text, said)))
            for unit in units
            if (is_over and names[unit.name] not in up)
            or not (statuses[unit.name].running or statuses[unit.name].has_ended)
        }

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop units by one command, which ends when their processes have."""
        names = list(names_of(units).values())
        up, along = self._live.survey(deadline, "-d", names)
        if along & up <= set(names) <= up:
            self._live.change(deadline, "-D", names)
        else:
            self._live.tell(STOP, names, deadline)
        self._supervision.note_stopped(names)

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Send the signal that asks to read the configuration again."""
        name = names_of([unit])[unit.name]
        if not self._live.is_supervised(name):
            self._oneshots.reload(unit)
            return
        option = SENDING[unit.reload_signal]
        asking = (self._tools.path("s6-svc"), option, "--", self._live.service_directory(name))
        status, output = self._tools.ask(deadline, *asking)
        if status != 0:
            raise CommandFailed(f"{unit.name} was not reloaded", details=output[-OUTPUT_TAIL:])

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Return the statuses of units; one command asks for all units whose processes are not known to be running."""
        try:
            found = self._supervision.states_of(units)
        except MachineError as error:
            return {unit.name: Status(running=False, text=str(error)) for unit in units}
        states = [(unit, found[unit.name]) for unit in units]
        return {
            unit.name: self._supervision.status(unit, state) if state.is_supervised else self._oneshots.status(unit)
            for unit, state in states
        }

    def exit_status(self, unit: Unit, pid: int) -> int | None:
        """Return how the main process has ended, of which s6-supervise is the parent."""
        try:
            state = self._supervision.last_state(unit)
        except MachineError:
            return None
        return state.exit_status if state.is_supervised else super().exit_status(unit, pid)

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        self._companions.await_written(unit)
        return super().log_size(unit)

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return a unit's log from byte ``start`` on."""
        self._companions.await_written(unit)
        return super().log(unit, start)


def definitions(units: Iterable[Unit]) -> set[str]:
    """Return the directories that define the services of the given units."""
    paths = (file.path.split("/") for unit in units for file in unit.files if file.path.startswith(f"{SOURCES}/"))
    return {"/".join(path[: SOURCES.count("/") + 2]) for path in paths}
