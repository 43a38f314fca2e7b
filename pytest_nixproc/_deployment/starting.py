"""Starting instances, each as soon as those that it depends on are ready; the calls of the manager run beside that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, wait
from graphlib import TopologicalSorter
from typing import Final

from pytest_nixproc._deployment.context import DeploymentContext, Subject
from pytest_nixproc._deployment.programs import refuse_programs
from pytest_nixproc._deployment.watching import Watch, start_error
from pytest_nixproc._persistence.journal import start_facts
from pytest_nixproc._planning.steps import Step
from pytest_nixproc.machines.waiting import LONGEST_PAUSE, Deadline
from pytest_nixproc.values.value import Value

BREAK_OFF_SECONDS: Final = 60.0
"""How long calls of the manager may take to end once nobody wants them any more: what they make would not be undone."""


class StartCall(Value):
    """A call of the manager that starts some instances."""

    names: tuple[str, ...]
    deadline: Deadline
    problems: Future[dict[str, str]]
    """Error texts by unit name, when the call has ended."""


class Startup:
    """The start of some instances, of which conditions see the ``subjects``."""

    def __init__(self, context: DeploymentContext, steps: Iterable[Step], subjects: Mapping[str, Subject]) -> None:
        self.context = context
        self.steps = {step.name: step for step in steps}
        self.awaited = {name for step in self.steps.values() for name in step.after}
        self.order = TopologicalSorter({step.name: step.after for step in self.steps.values()})
        self.order.prepare()
        self.watch = Watch(context, subjects)
        self.calls: list[StartCall] = []

    def carry_out(self) -> None:
        """Start all of them; raises :class:`~pytest_nixproc.errors.StartError` for the first that does not come up."""
        try:
            while self.order.is_active() or self.calls:
                # Each advance begins a new wait, whose looks follow each other closely at first.
                seconds = self.watch.remaining or LONGEST_PAUSE
                self.context.machine.deadline(seconds).until(self._advances)
        except BaseException:
            # Calls that still run have to end before anything is undone.
            for call in self.calls:
                call.deadline.expire()
            wait([call.problems for call in self.calls], BREAK_OFF_SECONDS)
            raise

    def _advances(self) -> bool:
        """Note finished calls and ready instances, and start those that waited; tell whether there was any progress."""
        finished = [call for call in self.calls if call.problems.done()]
        for call in finished:
            self.calls.remove(call)
            self._take_in(call)
        ready = self.watch.look()
        refuse_programs(self.context, ready, have_started=True)
        self.order.done(*ready)
        fresh = self.order.get_ready()
        for seconds, steps in self.context.by_limit(self.steps[name] for name in fresh):
            self._begin(steps, seconds)
        return bool(finished or ready or fresh)

    def _begin(self, steps: list[Step], seconds: float) -> None:
        """Have the manager start instances side by side."""
        context, names = self.context, tuple(step.name for step in steps)
        units = [context.units[name] for name in names]
        refuse_programs(context, names)
        limits = {context.units[name]: context.limit("stop", name) for name in names}
        context.journal.write("start", **start_facts(limits), reason=steps[0].reason)
        fresh = [name for name in names if not context.is_up(name)]
        context.running.update(dict.fromkeys(names))
        for known in (context.ends.over, context.ends.reported):
            known.difference_update(names)
        for name in names:
            context.timeline.add("start", name)
        deadline = context.machine.deadline(seconds)
        self.watch.add(names, deadline, self.awaited, fresh=fresh)
        self.calls.append(
            StartCall(names, deadline, context.machine.begin(lambda: context.driver.activate(units, deadline)))
        )

    def _take_in(self, call: StartCall) -> None:
        """Raise for an instance that a call of the manager has not started; the others have to become ready."""
        problems = call.problems.result()
        for name in call.names:
            unit = self.context.units[name]
            if unit.name in problems:
                brief = f"{name} did not start: {problems[unit.name]}"
                raise start_error(self.context.driver, unit, self.context.model[name], brief)
        for name in call.names:
            if name in self.watch.waits:
                self.context.timeline.add("spawned", name)
        self.watch.expect(call.names)
