"""The operation of a deployed system: its instances are started, stopped and inspected here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pytest_nixproc._deployment.context import DeploymentContext, Subject
from pytest_nixproc._deployment.ends import EndObserver
from pytest_nixproc._deployment.leftovers import Remains, StillRunning, end_left_behind, still_running
from pytest_nixproc._deployment.problems import with_log
from pytest_nixproc._deployment.starting import Startup
from pytest_nixproc._deployment.stopping import Shutdown
from pytest_nixproc._deployment.watching import Watch, ending_of, start_error
from pytest_nixproc._inspection.file_changes import FileChanges
from pytest_nixproc._inspection.observation import observe
from pytest_nixproc._inspection.observer import Observer
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._planning.steps import Step
from pytest_nixproc.checks.api import EndReport, Snapshot
from pytest_nixproc.machines.shielding import shielded, unhurried, verb
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
        self._ends: list[EndReport] = []

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
        shielded(partial(self._start, list(steps), subjects))

    def _start(self, steps: Sequence[Step], subjects: Mapping[str, Subject]) -> None:
        self.context.refuse_forked()
        with self.context.ends.being_changed({step.name for step in steps}):
            Startup(self.context, steps, subjects).carry_out()

    def stop(self, steps: Iterable[Step]) -> list[str]:
        """Stop instances; return the problems, of which what they leave behind is none yet."""
        return shielded(partial(self._stop, list(steps)))

    def _stop(self, steps: Sequence[Step]) -> list[str]:
        """Stop instances, always to the end: one that is half stopped could be neither used nor judged."""
        self.context.refuse_forked()
        with unhurried(), self.context.ends.being_changed({step.name for step in steps}):
            return Shutdown(self.context, steps).carry_out()

    def note_ends(self, *names: str) -> None:
        """Note whether instances have ended by themselves, before a verb of a test changes what can be seen of that."""
        self._ends += EndObserver(self.context).look(names)

    def take_ends(self) -> list[EndReport]:
        """Return the ends that nobody asked for since the last call."""
        self.note_ends(*self.plan.model)
        ends, self._ends = self._ends, []
        return ends

    def expect_end(self, name: str, pid: int | None) -> None:
        """Let the end of a main process be no news: a test has asked for it, or another finding is about it."""
        if pid is None:
            self.context.ends.over.add(name)
        else:
            self.context.ends.explained.add((name, pid))

    def refuse_ended(self, names: Iterable[str], statuses: Mapping[str, Status]) -> None:
        """Raise for an instance that has ended in the moment after it became ready.

        That is :class:`~pytest_nixproc.errors.StartError`.
        """
        for name in names:
            status, instance = statuses[name], self.plan.model[name]
            if status.has_ended and not instance.attributes.get("may_end"):
                brief = f"{name} did not start: it {ending_of(status)} as soon as it was ready"
                says = f"its manager says: {status.text}"
                raise start_error(self.driver, self.context.units[name], instance, brief, says)

    def stop_wholly(self, steps: Iterable[Step]) -> list[str]:
        """Stop instances while others run on, and end what they leave behind; return the problems."""
        return shielded(partial(self._stop_wholly, list(steps)))

    def _stop_wholly(self, steps: Sequence[Step]) -> list[str]:
        names = [step.name for step in steps]
        with unhurried(), self.context.ends.exclusively(names):
            remains = Remains(self.observer, names)
            return self.stop(steps) + self.end_left_behind(remains.look)

    def end_left_behind(self, look: StillRunning, tag: str = "") -> list[str]:
        """End the processes that stops have left behind; return a problem for each, with its instance's log."""
        problems, logged = [], dict(self.context.logged)
        for leftover in end_left_behind(self.machine, look, tag):
            # One log is enough for all processes of an instance.
            unit, start = self.context.units.get(leftover.instance), logged.pop(leftover.instance, None)
            problems.append(with_log(leftover.problem, self.driver, unit, start) if unit else leftover.problem)
        return problems

    def still_running(self, look: StillRunning) -> list[str]:
        """Return a problem if processes could not be ended."""
        return still_running(look)

    def await_ready(self, name: str, subject: Subject) -> None:
        """Wait until an instance is ready again; raises :class:`~pytest_nixproc.errors.StartError`."""
        deadline = self.machine.deadline(self.context.limit("start", name))
        Watch(self.context, {name: subject}).until_ready([name], deadline)

    def status_of(self, name: str) -> Status:
        """Return the status of an instance, as the manager reports it."""
        turns = dict(self.context.ends.turns)
        status = self.observer.status(name)
        if status.running and status.pid:
            self.context.remember({name: status.pid}, turns)
        return status

    def pids_of(self, name: str) -> list[int]:
        """Return all processes of an instance, its main process first."""
        return self.observer.pids(name, self.status_of(name))

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the whole system."""
        plan, context = self.plan, self.context
        turns = dict(context.ends.turns)
        told = plan.referenced_pid_files
        snapshot = observe(plan.model, context.units, self.driver, plan.target, plan.outside, told, self._changes)
        statuses = snapshot.statuses.items()
        context.remember({name: status.pid for name, status in statuses if status.running and status.pid}, turns)
        may_end = {name for name, instance in plan.model.items() if instance.attributes.get("may_end")}
        stopped = plan.model.keys() - context.running.keys()
        return replace(snapshot, may_be_down=may_end | stopped | context.ends.reported)

    @verb
    def statuses(self) -> dict[str, Status]:
        """Return the statuses of all instances, by one request to the manager."""
        return self.observer.statuses()

    @verb
    def log_sizes(self) -> dict[str, int]:
        """Return how much each instance has logged, in bytes."""
        return {name: self.driver.log_size(unit) for name, unit in self.context.units.items()}

    @verb
    def logs_since(self, sizes: Mapping[str, int]) -> dict[str, str]:
        """Return the log of each instance since :meth:`log_sizes`."""
        return {name: self.driver.log(unit, sizes.get(name, 0)) for name, unit in self.context.units.items()}

    def log(self, name: str, start: int = 0) -> str:
        """Return an instance's log from byte ``start`` on."""
        return self.driver.log(self.context.units[name], start)
