"""The driver of systemd: it asks a systemd for everything, through systemctl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_nixproc.errors import CommandFailed, MachineError, Unreachable
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.api import Driver, awaited_by_proxy
from pytest_nixproc.managers.systemd.commands import ASK_SECONDS, Commands
from pytest_nixproc.managers.systemd.generator import journalled, note_of, prefix, target_unit
from pytest_nixproc.managers.systemd.journal import JOURNAL_SOCKET, UnitJournal
from pytest_nixproc.managers.systemd.knowledge import Knowledge
from pytest_nixproc.managers.systemd.launcher import CGROUP_MOUNTS
from pytest_nixproc.managers.systemd.links import Links
from pytest_nixproc.managers.systemd.own import OwnSystemd
from pytest_nixproc.managers.systemd.scope import SYSTEM_UNITS, SystemdScope, own_cgroup, session_directory
from pytest_nixproc.values.commands import OUTPUT_TAIL
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

KILL_SECONDS: Final = 2.0
"""How long after its time is over a process may take to be killed by systemd."""

NOT_LOADED: Final = 5
"""How systemctl ends when it has to stop what systemd knows nothing of (LSB: not installed)."""

ALONE: Final = "--job-mode=ignore-requirements"
"""The deployment decides what is started and stopped: systemd is not to take what is required, or requires, along."""


class SystemdDriver(Driver):
    """The driver that finds its systemd again by a record in the deployment's directory, and units by their names."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._commands = Commands(machine, target)
        self._own = OwnSystemd(machine, target, self._commands)
        self._links = Links(target, self._commands)
        self._knowledge = Knowledge(machine, target, self._commands)
        self._journal = UnitJournal(machine, target)
        self._started: set[str] | None = None
        """The units that have been started; None where others may have started some."""

    def open(self, deadline: Deadline) -> None:
        """Start a private systemd, or link the units for a shared one that runs already."""
        self._started = set()
        scope = self._commands.scope = SystemdScope.choose(self.machine, self.target)
        scope.record(self.machine, self.target)
        if scope.kind == "private":
            self._own.start(scope, deadline)
        else:
            self._links.make(scope, deadline)
            self._commands.succeed(deadline, "start", target_unit(self.target))

    def close(self, deadline: Deadline) -> None:
        """End a private systemd with its control group, or withdraw the units from a shared one."""
        scope = SystemdScope.recall(self.machine, self.target)
        if scope is None:
            return
        if scope.kind == "private":
            self._own.end(scope, deadline)
        elif scope.kind == "system" or self.machine.files.exists(scope.socket):
            self._withdraw(scope, deadline)

    def _withdraw(self, scope: SystemdScope, deadline: Deadline) -> None:
        """Stop all units of the deployment, and make systemd forget them."""
        names = f"{prefix(self.target)}-*", target_unit(self.target)
        status, output = self._commands.ask(deadline, "stop", *names)
        if status is None:
            brief = "systemd does not stop the deployment's units"
            raise Unreachable(brief, details=output, remedy="see what systemctl list-jobs shows")
        self._commands.ask(deadline, "reset-failed", *names)
        self._links.remove(scope, deadline)

    def remains(self) -> Sequence[str]:
        """Return what is left of the deployment: its control group, and the links to its target unit.

        Links to the other units are made after that one, and all are removed together.
        """
        links = (SYSTEM_UNITS, f"{session_directory()}/systemd/user")
        scope = SystemdScope.recall(self.machine, self.target)
        group = scope.cgroup if scope else own_cgroup(self.machine, self.target)
        paths = [group, *(f"{directory}/{target_unit(self.target)}" for directory in links)]
        return [f"left of systemd: {path}" for path in paths if path and self.machine.files.exists(path)]

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Make systemd read all unit files again."""
        deadline = self.machine.deadline(ASK_SECONDS)
        self._knowledge.forget(unit for unit in old if unit not in new)
        scope = self._commands.scope
        if scope.links:
            self._links.remove(scope, deadline)
            self._links.make(scope, deadline)
        self._commands.succeed(deadline, "daemon-reload")

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Start units by one command, and wait until systemd counts them as started.

        What has ended already is reported as it is by who waits for it.
        """
        to_journal = [unit.name for unit in units if journalled(unit)]
        if to_journal and not self.machine.files.exists(JOURNAL_SOCKET):
            problem = f"its overrides send its output to the journal, and none runs: no {JOURNAL_SOCKET}"
            return dict.fromkeys(to_journal, problem)
        if again := [unit for unit in units if self._started is None or unit.name in self._started]:
            # systemd would leave a unit alone of which it has not noticed that its process has ended.
            self._knowledge.states_of(again)
        if self._started is not None:
            self._started.update(unit.name for unit in units)
        status, output = self._commands.ask(deadline, "start", ALONE, *self._knowledge.names(units))
        self._knowledge.forget(units)
        statuses = self.status(units)
        return {
            unit.name: self._problem(unit, statuses[unit.name], output if status else "")
            for unit in units
            if not (statuses[unit.name].running or statuses[unit.name].has_ended)
        }

    def _problem(self, unit: Unit, status: Status, output: str) -> str:
        awaited = f"PID file {unit.pid_file} has to name a process of the unit" if unit.pid_file else ""
        return "\n".join(filter(None, (status.text, self.unmet(unit) or awaited, output.rstrip())))

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop units by one command, which ends when all of their processes have; systemd kills those that do not."""
        self._knowledge.forget(units)
        limit = self.machine.deadline(deadline.remaining + KILL_SECONDS)
        status, output = self._commands.ask(limit, "stop", ALONE, *self._knowledge.names(units))
        if status not in (0, None, NOT_LOADED):
            raise CommandFailed("systemd has not stopped units", details=output[-OUTPUT_TAIL:].rstrip())
        self._knowledge.note_stopped(units)
        if status == 0:
            # systemd removes the file that it reads itself, which is the escort's.
            for path in filter(None, (unit.pid_file for unit in units)):
                self.machine.files.remove(path)

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Have systemd run the unit's command for a reload, which sends the process's signal, or is an override's."""
        status, output = self._commands.ask(deadline, "reload", *self._knowledge.names([unit]))
        if status != 0:
            raise CommandFailed(f"{unit.name} was not reloaded", details=output[-OUTPUT_TAIL:])

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Return the statuses of all units by one command; the reasons of failures need more."""
        try:
            found = self._knowledge.states_of(units)
            return {name: self._knowledge.explained(state) for name, state in found.items()}
        except MachineError as error:
            return {unit.name: Status(running=False, text=str(error)) for unit in units}

    def unmet(self, unit: Unit) -> str:
        """Return why a unit that already answers is not ready yet: its escort has a note, too, in another place."""
        return super().unmet(unit) or awaited_by_proxy(unit, self.machine.files.read(note_of(unit.name, self.target)))

    def exit_status(self, unit: Unit, pid: int) -> int | None:
        """Return how the main process has ended, of which systemd is the parent; None after a stop without a kill."""
        if self._knowledge.is_stopped(unit):
            return None
        state = self._knowledge.states_of([unit])[unit.name]
        return state.exit_status if state["ExecMainPID"] == str(pid) else None

    def members(self, unit: Unit) -> Sequence[int]:
        """Return the pids of the processes in a unit's control group."""
        group = self._knowledge.states_of([unit])[unit.name]["ControlGroup"]
        contents = (self.machine.files.read(f"{mount}{group}/cgroup.procs") for mount in CGROUP_MOUNTS) if group else ()
        return [int(pid) for content in contents for pid in (content or b"").split()]

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        return len(self._journal.content(unit)) if journalled(unit) else super().log_size(unit)

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return a unit's log from byte ``start`` on."""
        if not journalled(unit):
            return super().log(unit, start)
        return self._journal.content(unit)[start:].decode(errors="replace")
