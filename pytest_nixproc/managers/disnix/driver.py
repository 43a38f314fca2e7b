"""The driver: has Dysnomia activate and deactivate components, or does what its module would do."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final

from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.machines.api import Spawn, describe_failure
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.api import Unit
from pytest_nixproc.managers.daemons import HINT, DaemonDriver, record_of
from pytest_nixproc.managers.disnix.generator import MODULE_SETTINGS, PLAIN, directory_of, settings_of

ACTIVATE: Final = '. "$1" && exec "$process"'
"""Runs the process of a component, as its description says."""


class DisnixDriver(DaemonDriver):
    """Finds processes by their PID files, as the module does, and by our records of them, as it does not."""

    @cached_property
    def _dysnomia(self) -> str:
        """The program that activates components; empty where there is none, or it could not be told our paths."""
        path = self.machine.which("dysnomia")
        told = (path, self.target.directory, self._marks)
        return path if all(map(PLAIN.fullmatch, told)) else ""

    @property
    def _marks(self) -> str:
        """The directory in which Dysnomia remembers what is active: by default, all of a machine share one."""
        return f"{self.target.state.lib_dir}/dysnomia"

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Activate components side by side.

        A PID file of an earlier process is removed before: Dysnomia would take it for a sign that the process runs.
        """
        statuses = self.status(units)
        idle = [unit for unit in units if not statuses[unit.name].running]
        for unit in idle:
            self.forget(unit)
            # First, so that whoever has to take this over knows what may have been started.
            self.machine.write(record_of(unit.name, self.target), "")
        commands = [self._activation(unit) for unit in idle]
        problems = {}
        for unit, command, status in zip(idle, commands, self.machine.run(commands, deadline), strict=True):
            self.identify(unit)
            if status != 0:
                self.machine.remove(record_of(unit.name, self.target))
                hint = HINT if status is None else ""
                problems[unit.name] = f"its component {describe_failure(command.argv, status)}{hint}"
        return problems

    def _activation(self, unit: Unit) -> Spawn:
        if self._dysnomia:
            return self._operation("activate", unit)
        settings = f"{self.target.directory}/{settings_of(unit.name)}"
        return Spawn((self.machine.facts.shell, "-c", ACTIVATE, "sh", settings), self._environment, unit.log_file)

    def _operation(self, operation: str, unit: Unit) -> Spawn:
        component = f"{self.target.directory}/{directory_of(unit.name)}"
        settings = f"{self.target.directory}/{MODULE_SETTINGS}"
        words = ("--operation", operation, "--component", component, "--container", settings)
        environment = {**self._environment, "DYSNOMIA_STATEDIR": self._marks}
        return Spawn((self._dysnomia, *words), environment, unit.log_file)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": self.machine.path_variable, **self.target.tags}

    def missing(self, unit: Unit) -> str:
        """Return what an instance still owes; a daemon that wrote its PID file late is identified now."""
        missing = super().missing(unit)
        if not missing:
            self.identify(unit)
        return missing

    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:
        """Deactivate components, or end processes as that would.

        PID files of processes that have ended are removed before: whoever has their numbers now is none of ours.
        """
        ours = {unit: pid for unit, pid in pids.items() if self.is_recorded(unit, pid) or not self.identity(pid)}
        if self._dysnomia:
            for unit in units:
                if unit not in ours:
                    self.forget(unit)
            self.machine.run([self._operation("deactivate", unit) for unit in units], deadline)
        else:
            for pid in ours.values():
                self.machine.signal(pid, signal.SIGTERM)

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send SIGHUP; components have no activity for that."""
        status = self.status([unit])[unit.name]
        if not status.running or status.pid is None:
            raise CommandFailed(f"{unit.name}: it does not run")
        self.machine.signal(status.pid, signal.SIGHUP)
