"""Stopping instances, each as soon as those that depend on it have ended; with growing force, where that is needed.

The force: the manager's own stop, SIGTERM, SIGKILL of the whole process tree.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from graphlib import TopologicalSorter
from typing import Final

from pytest_nixproc._deployment.context import DeploymentContext
from pytest_nixproc._planning.steps import Step
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import descendants
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.values.units import Unit

STRAY_SECONDS: Final = 10.0
ROUND_SECONDS: Final = 0.5
TURN_SECONDS: Final = 60.0
FORCES: Final = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True)
class StopCall:
    """A call of the manager that stops some instances."""

    pids: Mapping[str, int]
    """Main processes as last seen, by instance."""

    problems: Future[list[str]]
    """Problems of the stop, when the call has ended."""

    left: set[str] = field(default_factory=set)
    """The instances whose end is still to be seen."""


class Shutdown:
    """The stop of some instances."""

    def __init__(self, context: DeploymentContext, steps: Iterable[Step]) -> None:
        self.context = context
        self.steps = {step.name: step for step in steps}
        self.awaited = {name for step in self.steps.values() for name in step.after}
        self.order = TopologicalSorter({step.name: step.after for step in self.steps.values()})
        self.order.prepare()
        self.calls: list[StopCall] = []

    def carry_out(self) -> list[str]:
        """Stop all of them, even after problems; return the problems."""
        problems: list[str] = []

        def advances() -> bool:
            fresh = self.order.get_ready()
            for seconds, steps in self.context.by_limit(self.steps[name] for name in fresh):
                self._begin([step.name for step in steps], seconds)
            finished = [call for call in self.calls if call.problems.done()]
            for call in finished:
                self.calls.remove(call)
                problems.extend(call.problems.result())
            stopped = {name for call in finished for name in call.left} | self._ended()
            problems.extend(collect_problems(partial(self._note, sorted(stopped))))
            return bool(fresh or stopped or finished)

        while self.order.is_active() or self.calls:
            # Each advance begins a new wait, whose looks follow each other closely at first.
            self.context.machine.deadline(TURN_SECONDS).until(advances)
        return problems

    def _begin(self, names: Sequence[str], seconds: float) -> None:
        """Have the manager stop instances side by side."""
        context, units = self.context, {name: self.context.units[name] for name in names}
        pids = {name: pid for name in names if (pid := context.pids.pop(name, None)) is not None}
        for name in names:
            context.timeline.add("stop", name)
        stop = partial(stop_units, context.driver, units, pids, seconds)
        self.calls.append(StopCall(pids, context.machine.begin(stop), set(names)))

    def _ended(self) -> set[str]:
        """Return the instances that others wait for whose main process has ended, while the manager still works."""
        waiting = {
            name: pid
            for call in self.calls
            for name, pid in call.pids.items()
            if name in call.left and name in self.awaited
        }
        ended = self.context.machine.processes.ended(waiting.values()) if waiting else set()
        stopped = {name for name, pid in waiting.items() if pid in ended}
        for call in self.calls:
            call.left.difference_update(stopped)
        return stopped

    def _note(self, stopped: Sequence[str]) -> list[str]:
        """Record instances as stopped, and let those stop that waited for them; the journal comes last: it may fail."""
        for name in stopped:
            self.context.timeline.add("stopped", name)
            self.context.running.pop(name, None)
        self.order.done(*stopped)
        if stopped:
            self.context.journal.write("stopped", units=[self.context.units[name].name for name in stopped])
        return []


def collect_problems(action: Callable[[], list[str] | None]) -> list[str]:
    """Do one part of a teardown; its failure becomes a problem, so that the other parts are done too."""
    try:
        return action() or []
    except (NixprocError, OSError) as error:
        return [str(error)]


def stop_units(driver: Driver, units: Mapping[str, Unit], pids: Mapping[str, int], seconds: float) -> list[str]:
    """Stop units side by side; return the problems.

    ``pids`` are the main processes as last seen, by instance: they are what has to be gone afterwards.
    """
    machine = driver.machine
    ended_before = machine.processes.ended(pids.values())
    problems = collect_problems(partial(driver.deactivate, list(units.values()), machine.deadline(seconds)))
    ended = machine.processes.ended(pids.values())
    machine.processes.sync_exits()
    for name, pid in pids.items():
        if pid in ended_before:
            continue
        if pid in ended:
            problems += collect_problems(partial(manner_of_end, driver, units[name], name, pid, seconds))
        else:
            problems += force(machine, name, pid, seconds)
    return problems


def manner_of_end(driver: Driver, unit: Unit, name: str, pid: int, seconds: float) -> list[str]:
    """Return a problem if the manager had to kill a process that it has stopped."""
    killed = driver.exit_status(unit, pid) == -signal.SIGKILL
    return [f"{name} did not stop within {seconds:g} s and was killed by its manager"] if killed else []


def force(machine: Machine, name: str, pid: int, seconds: float) -> list[str]:
    """End a process that its manager did not stop in time; return the problem, with the signal that was needed."""
    brief = f"{name} did not stop within {seconds:g} s"
    tree = [pid, *descendants([pid], machine.processes.parents())]
    for number, limit in FORCES:
        for member in tree:
            machine.processes.signal(member, number)
        if not machine.processes.wait_ended(tree, machine.deadline(limit)):
            # It may have been its manager that killed it, in the same moment.
            machine.processes.sync_exits()
            killed = machine.processes.exit_status(pid) == -signal.SIGKILL
            return [f"{brief} and was ended by {signal.SIGKILL.name if killed else number.name}"]
    return [f"{brief}, and process {pid} survives SIGKILL"]


def end_strays(machine: Machine, look: Callable[[], list[int]]) -> list[str]:
    """Kill the processes that ``look`` finds, until it finds none; return a problem for each.

    All of them are frozen before the first is killed, so that they cannot fork faster than they die.
    """
    problems: dict[int, str] = {}
    deadline = machine.deadline(STRAY_SECONDS)
    while (strays := look()) and deadline.remaining:
        for pid in strays:
            problems.setdefault(pid, f"process {pid} was left behind, and killed: {machine.processes.describe(pid)}")
            machine.processes.signal(pid, signal.SIGSTOP)
        for pid in strays:
            machine.processes.signal(pid, signal.SIGKILL)
        machine.processes.wait_ended(strays, machine.deadline(ROUND_SECONDS))
    return list(problems.values())
