"""The stop of units by their manager, and by force where that is not enough; every kill is a problem of it.

The force: the manager's own stop, SIGTERM, SIGKILL of the whole process tree.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from functools import partial
from typing import Final

from pytest_nixproc._deployment.problems import collect_problems, log_sizes, with_log
from pytest_nixproc.machines.process_table import descendants
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.values.units import Unit

FORCES: Final = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0))
"""The signals to processes that their manager has not stopped, and how long each may take at least to have effect."""


class UnitStop:
    """The stop of some units side by side, within ``seconds`` from its making on.

    ``pids`` are the main processes as last seen, by instance: they are what has to be gone afterwards.
    """

    def __init__(self, driver: Driver, units: Mapping[str, Unit], pids: Mapping[str, int], seconds: float) -> None:
        self.driver = driver
        self.machine = driver.machine
        self.units = units
        self.pids = pids
        self.seconds = seconds
        self.logged: Mapping[str, int] = {}
        """How much was logged before the stop, by instance; none where that cannot be known."""

        self.forced: dict[str, str] = {}
        """How those instances were ended that did not stop in time, by instance."""

        self._begun = self.machine.clock.now()
        self._deadline = self.machine.deadline(seconds)
        self._ends: dict[str, float] = {}

    def look(self) -> set[str]:
        """Return the instances whose main process has ended; anybody may look while the stop goes on."""
        pending = {name: pid for name, pid in self.pids.items() if name not in self._ends}
        ended = self.machine.processes.ended(pending.values()) if pending else set()
        for name, pid in pending.items():
            if pid in ended:
                self._ends.setdefault(name, self._elapsed)
        return set(self._ends)

    @property
    def _elapsed(self) -> float:
        return self.machine.clock.now() - self._begun

    def carry_out(self) -> list[str]:
        """Stop the units; return the problems."""
        ended_before = self.look()
        self.logged = log_sizes(self.driver, self.units, self.units)
        problems = collect_problems(partial(self.driver.deactivate, list(self.units.values()), self._deadline))
        given = self._elapsed
        ended = self.look()
        self.machine.processes.sync_exits()
        for name, pid in self.pids.items():
            if name not in ended:
                problems.append(self._with_log(name, self._force(name, pid, given)))
            elif name not in ended_before:
                killed = collect_problems(partial(self._manner_of_end, name, pid))
                problems += [self._with_log(name, problem) for problem in killed]
        return problems

    def _manner_of_end(self, name: str, pid: int) -> list[str]:
        """Return a problem if the manager had to kill a process that it has stopped."""
        if self.driver.exit_status(self.units[name], pid) != -signal.SIGKILL:
            return []
        waited = self._ends[name]
        self.forced[name] = "killed by its manager"
        return [f"{self._brief(name, waited)}: process {pid} was killed by its manager after {waited:.1f} s"]

    def _force(self, name: str, pid: int, given: float) -> str:
        """End a process that its manager did not stop in ``given`` seconds; return the problem.

        One that its manager gave up early still has the rest of its time.
        """
        brief = self._brief(name, given)
        tree = [pid, *descendants([pid], self.machine.processes.parents())]
        for number, least in FORCES:
            for member in tree:
                self.machine.processes.signal(member, number)
            limit = self.machine.deadline(max(least, self._deadline.remaining))
            if not self.machine.processes.wait_ended(tree, limit):
                # It may have been its manager that killed it, in the same moment.
                self.machine.processes.sync_exits()
                killed = self.machine.processes.exit_status(pid) == -signal.SIGKILL
                signal_name = signal.SIGKILL.name if killed else number.name
                self.forced[name] = f"ended by {signal_name}"
                return f"{brief}: process {pid} was ended by {signal_name} after {self._elapsed:.1f} s"
        return f"{brief}: process {pid} survives SIGKILL, {self._elapsed:.1f} s after the stop was asked for"

    def _with_log(self, name: str, problem: str) -> str:
        return with_log(problem, self.driver, self.units[name], self.logged.get(name))

    def _brief(self, name: str, given: float) -> str:
        if given >= self.seconds:
            return f"{name} did not stop within {self.seconds:g} s"
        return f"{name} was given {given:.1f} of its {self.seconds:g} s to stop"
