"""The operation of a deployed system: its instances are started, stopped and inspected here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pytest_nixproc._deployment.context import DeploymentContext, Subject
from pytest_nixproc._deployment.leftovers import Look, Remains, end_left_behind
from pytest_nixproc._deployment.problems import with_log
from pytest_nixproc._deployment.starting import Startup
from pytest_nixproc._deployment.stopping import Shutdown
from pytest_nixproc._deployment.watching import Watch
from pytest_nixproc._inspection.file_changes import FileChanges
from pytest_nixproc._inspection.observation import observe
from pytest_nixproc._inspection.observer import Observer
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._planning.steps import Step
from pytest_nixproc.checks.api import Snapshot
from pytest_nixproc.values.units import Status


class Operation:
    """A deployed system; a guest's processes have been started by another process than this one."""

    def __init__(self, plan: Plan, context: DeploymentContext, *, is_guest: bool = False) -> None:
        self.plan = plan
        self.context = context
        self.machine = context.machine
        self.driver = context.driver
        self.timeline = context.timeline
        self.observer = Observer(context.driver, context.units, is_guest=is_guest)
        self._changes = FileChanges(context.model, context.machine)

    def adopt(self, plan: Plan) -> None:
        """Go on with another plan, whose files are in place."""
        if plan.model is not self.plan.model:
            self._changes = FileChanges(plan.model, self.machine)
        self.plan = plan
        self.context = replace(self.context, model=plan.model, units=plan.unit_set.units)
        self.observer.units = plan.unit_set.units

    def start(self, steps: Iterable[Step], subjects: Mapping[str, Subject]) -> None:
        """Start instances, of which conditions see the ``subjects``; raises for one that does not become ready.

        That is :class:`~pytest_nixproc.errors.StartError`.
        """
        Startup(self.context, steps, subjects).carry_out()

    def stop(self, steps: Iterable[Step]) -> list[str]:
        """Stop instances; return the problems, of which what they leave behind is none yet."""
        return Shutdown(self.context, steps).carry_out()

    def stop_wholly(self, steps: Iterable[Step]) -> list[str]:
        """Stop instances while others run on, and end what they leave behind; return the problems."""
        steps = list(steps)
        remains = Remains(self.observer, [step.name for step in steps])
        return self.stop(steps) + self.end_left_behind(remains.look)

    def end_left_behind(self, look: Look) -> list[str]:
        """End the processes that stops have left behind; return a problem for each, with its instance's log."""
        problems, logged = [], dict(self.context.logged)
        for leftover in end_left_behind(self.machine, look):
            # One log is enough for all processes of an instance.
            unit, start = self.context.units.get(leftover.instance), logged.pop(leftover.instance, None)
            problems.append(with_log(leftover.problem, self.driver, unit, start) if unit else leftover.problem)
        return problems

    def await_ready(self, name: str, subject: Subject) -> None:
        """Wait until an instance is ready again; raises :class:`~pytest_nixproc.errors.StartError`."""
        deadline = self.machine.deadline(self.context.limit("start", name))
        Watch(self.context, {name: subject}).until_ready([name], deadline)

    def status_of(self, name: str) -> Status:
        """Return the status of an instance, as the manager reports it."""
        status = self.observer.status(name)
        if status.running and status.pid:
            self.context.remember({name: status.pid})
        return status

    def pids_of(self, name: str) -> list[int]:
        """Return all processes of an instance, its main process first."""
        return self.observer.pids(name, self.status_of(name))

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the whole system."""
        plan = self.plan
        told = plan.referenced_pid_files
        snapshot = observe(plan.model, self.context.units, self.driver, plan.target, plan.outside, told, self._changes)
        statuses = snapshot.statuses.items()
        self.context.remember({name: status.pid for name, status in statuses if status.running and status.pid})
        return snapshot

    def log(self, name: str, start: int = 0) -> str:
        """Return an instance's log from byte ``start`` on."""
        return self.driver.log(self.context.units[name], start)
