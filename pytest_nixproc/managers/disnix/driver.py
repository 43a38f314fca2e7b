"""The driver of disnix: it activates and deactivates components with Dysnomia, or as Dysnomia's module would do it."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.daemons import HINT, DaemonDriver, record_of
from pytest_nixproc.managers.disnix.dysnomia import Dysnomia
from pytest_nixproc.values.commands import describe_failure
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit


class DisnixDriver(DaemonDriver):
    """The driver that finds processes by their PID files, as the module does, and also by our records of them."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._dysnomia = Dysnomia(machine, target)
        self._activating: set[Unit] = set()
        """Units whose components are being activated: nothing that they leave behind says when that is done."""

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Activate components side by side.

        A PID file of an earlier process is removed before: Dysnomia would take it for a sign that the process runs.
        """
        statuses = self.status(units)
        idle = [unit for unit in units if not statuses[unit.name].running]
        for unit in idle:
            self.records.forget(unit)
            # First, so that whoever has to take this over knows what may have been started.
            self.records.begin(unit)
        commands = [self._dysnomia.activation(unit) for unit in idle]
        self._activating.update(idle)
        try:
            ends = self.machine.processes.run(commands, deadline)
        finally:
            self._activating.difference_update(idle)
        problems = {}
        for unit, command, status in zip(idle, commands, ends, strict=True):
            self.records.identify(unit)
            if status != 0:
                self.machine.files.remove(record_of(unit.name, self.target))
                hint = HINT if status is None else ""
                problems[unit.name] = f"its component {describe_failure(command.argv, status)}{hint}"
        return problems

    def unmet(self, unit: Unit) -> str:
        """Return why a component that already answers is not ready yet; record a daemon whose PID file came late."""
        if unit.mode == "daemon" and unit in self._activating:
            return "its component is being activated"
        unmet = super().unmet(unit)
        if not unmet:
            self.records.identify(unit)
        return unmet

    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:
        """Deactivate components with Dysnomia, or send their processes the signal that asks them to stop.

        Dysnomia's module knows SIGTERM alone: what wants another signal is sent that by us. PID files of processes that
        have ended are removed before: whoever has their numbers now is none of ours.
        """
        ours = {
            unit: pid
            for unit, pid in pids.items()
            if self.records.is_recorded(unit, pid) or not self.records.identity(pid)
        }
        theirs = [unit for unit in units if self._dysnomia.program and unit.stop_signal == "TERM"]
        for unit in theirs:
            if unit not in ours:
                self.records.forget(unit)
        if theirs:
            self.machine.processes.run([self._dysnomia.operation("deactivate", unit) for unit in theirs], deadline)
        for unit, pid in ours.items():
            if unit not in theirs:
                self.machine.processes.signal(pid, signal.Signals[f"SIG{unit.stop_signal}"])

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send the signal that asks to read the configuration again: components have no activity for that."""
        status = self.status([unit])[unit.name]
        if not status.running or status.pid is None:
            raise CommandFailed(f"{unit.name}: it does not run")
        self.machine.processes.signal(status.pid, signal.Signals[f"SIG{unit.reload_signal}"])
