"""Stopping instances, each as soon as those that depend on it have ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from graphlib import TopologicalSorter
from typing import Final

from pytest_nixproc._deployment.context import DeploymentContext
from pytest_nixproc._deployment.problems import collect_problems
from pytest_nixproc._deployment.unit_stop import UnitStop
from pytest_nixproc._planning.steps import Step

TURN_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.1
"""How often it is seen which processes have ended where nobody waits for that: reports say when, with one digit."""


@dataclass
class StopCall:
    """A call of the manager that stops some instances."""

    stop: UnitStop
    problems: Future[list[str]]
    """Problems of the stop, when the call has ended."""

    left: set[str] = field(default_factory=set)
    """The instances whose end is still to be seen."""

    next_look: float = 0.0
    """When to look at its processes even if nobody waits for their ends, on the machine's clock."""


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
                self.context.logged.update(call.stop.logged)
            stopped = {name: call.stop.forced.get(name, "") for call in finished for name in sorted(call.left)}
            stopped |= dict.fromkeys(sorted(self._ended()), "")
            problems.extend(collect_problems(partial(self._note, stopped)))
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
        stop = UnitStop(context.driver, units, pids, seconds)
        self.calls.append(StopCall(stop, context.machine.begin(stop.carry_out), set(names)))

    def _ended(self) -> set[str]:
        """Return the instances that others wait for whose main process has ended, while the manager still works."""
        now = self.context.machine.clock.now()
        due = [call for call in self.calls if call.left & self.awaited or call.next_look <= now]
        stopped = {name for call in due for name in call.stop.look() & call.left & self.awaited}
        for call in due:
            call.next_look = now + LOOK_SECONDS
            call.left.difference_update(stopped)
        return stopped

    def _note(self, stopped: Mapping[str, str]) -> list[str]:
        """Record instances as stopped, and let those stop that waited for them; the journal comes last: it may fail."""
        for name, how in stopped.items():
            self.context.timeline.add("stopped", name, how)
            self.context.running.pop(name, None)
        self.order.done(*stopped)
        if stopped:
            self.context.journal.write("stopped", units=[self.context.units[name].name for name in stopped])
        return []
