"""The deployment of one system, which carries out a plan, and takes everything back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from functools import partial
from typing import Final

from pytest_nixproc._deployment.context import DeploymentContext, Subject
from pytest_nixproc._deployment.installation import Installation
from pytest_nixproc._deployment.judging import Judge
from pytest_nixproc._deployment.lease import LeaseHolder
from pytest_nixproc._deployment.operation import Operation
from pytest_nixproc._deployment.problems import collect_problems, told_plainly
from pytest_nixproc._deployment.refusals import held_ports, refuse_conflicts, refuse_held_ports
from pytest_nixproc._deployment.timeline import Timeline
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._persistence.shared_deployments import SharedDeployment
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._planning.planner import LoadModel, Planner
from pytest_nixproc._planning.steps import UnitSet, steps_between
from pytest_nixproc.errors import NixprocError, TeardownError, Unreachable
from pytest_nixproc.machines.shielding import to_its_end, unhurried

CLOSE_SECONDS: Final = 10.0
LEFT_TO_REAPER: Final = "{root} is kept until it is back; nixproc reap removes what is left then"


class Phase(Enum):
    """The phases of a deployment; the value of each names the things that exist then."""

    PLANNED = "nothing"
    CLAIMED = "its place is leased, and somebody guards it"
    INSTALLED = "its directory, with a journal and maybe files"
    OPENING = "its manager may be up"
    OPEN = "its manager is up, and maybe instances"
    UNREACHABLE = "its manager does not answer, and may have anything"
    OCCUPIED = "processes that could not be ended may still use it"
    OVER = "nothing that is still this process's to take down"


class Deployment:
    """One system on one machine, under one manager: ``start`` it, use it, ``stop`` it."""

    def __init__(self, planner: Planner, leases: Leases, share: SharedDeployment | None = None) -> None:
        self.planner = planner
        self.machine = planner.machine
        self.lease = LeaseHolder(planner, leases, share)
        self.directory = self.lease.directory
        self.installation = Installation(self.machine, self.directory, leases)
        self.timeline = Timeline(self.machine.clock.now)
        self.phase = Phase.PLANNED
        self._boots = self.machine.lifecycle.boot_count
        self._operation: Operation | None = None
        self._judge: Judge | None = None

    @property
    def operation(self) -> Operation:
        """The deployed system, with which its instances are started, stopped and inspected."""
        assert self._operation is not None, "nothing is deployed before start()"
        return self._operation

    @property
    def judge(self) -> Judge:
        """The judge of the deployed system."""
        assert self._judge is not None, "nothing is deployed before start()"
        return self._judge

    @property
    def is_deployed(self) -> bool:
        """Tell whether there is something to stop."""
        return self.phase not in (Phase.PLANNED, Phase.OVER)

    @to_its_end
    def start(self, load: LoadModel, subjects: Mapping[str, Subject]) -> None:
        """Deploy a model; on any problem, everything that was started is stopped before the error is raised.

        Conditions see the ``subjects``, by instance. Raises the errors of the model's source,
        :class:`~pytest_nixproc.errors.ConflictError`, :class:`~pytest_nixproc.errors.DeploymentError` and its kinds,
        and :class:`~pytest_nixproc.errors.MachineError`.
        """
        if not self.lease.acquire():
            self._attach(load)
            return
        self.phase = Phase.CLAIMED
        with self._undone_on_error():
            self.lease.take()
            self.planner.manager.warm_up(self.machine)
            if self.planner.manager.capabilities.executes_files:
                self.directory.refuse_noexec()
            plan = self.lease.plan(load)
            for name in plan.model:
                self.timeline.add("planned", name)
            refuse_conflicts(plan)
            refuse_held_ports(self.machine, plan.model, plan.model)
            self._install(plan)
            self.installation.journal.write("open")
            self.phase = Phase.OPENING
            self.operation.driver.open(self.machine.deadline(self.planner.settings.start_seconds))
            self.phase = Phase.OPEN
            self.operation.start(steps_between(UnitSet(), self.operation.plan.unit_set), subjects)
            self.judge.refuse_live_conflicts(plan.model)
        if self.lease.share:
            self.lease.share.open()

    def _install(self, plan: Plan) -> None:
        """Make the directories, begin the journal, write the generated files."""
        self.installation.make_root(plan.target)
        self._operate(plan)
        self.phase = Phase.INSTALLED
        self.installation.announce(plan, self.planner.manager.name, self.lease.assigner.facts())
        self.lease.sign(self.installation.journal)
        self.installation.make_directories(plan)
        self.installation.provide(plan)
        plan = self.planner.settled(plan)
        plan.model.provide(plan.directory.root)
        self.installation.write(plan)
        self._adopt(plan)

    def _adopt(self, plan: Plan) -> None:
        """Go on with a plan whose files are in place; its programs have their time to stop in a recovery, too."""
        self.operation.adopt(plan)
        self.lease.be_guarded(self.operation.context.longest_stop)

    def _operate(self, plan: Plan, *, is_guest: bool = False) -> None:
        """Make the operation, which works with a plan's instances."""
        driver, manager = self.planner.manager.driver(self.machine, plan.target), self.planner.manager.name
        journal, settings = self.installation.journal, self.planner.settings
        context = DeploymentContext(plan.model, plan.unit_set.units, driver, journal, self.timeline, settings, manager)
        self._operation = Operation(plan, context, is_guest=is_guest)
        self._judge = Judge(self._operation, self.planner.rulebook)

    def _attach(self, load: LoadModel) -> None:
        """Use the deployment of another process, as its journal describes it."""
        plan = self.lease.joined(load)
        self.installation.join()
        self.lease.sign(self.installation.journal)
        self._operate(plan, is_guest=True)
        self.lease.be_guarded(self.operation.context.longest_stop)
        self.operation.context.running.update(dict.fromkeys(plan.model))
        self.phase = Phase.OPEN
        self.operation.snapshot()

    @to_its_end
    def switch(self, load: LoadModel, subjects: Mapping[str, Subject]) -> None:
        """Upgrade to another model; only instances whose configuration differs are stopped and started."""
        self.operation.context.refuse_forked()
        with exclusively(self.operation):
            operation, installation = self.operation, self.installation
            operation.note_ends(*operation.plan.model)
            old, new = operation.plan, self.lease.plan(load)
            refuse_conflicts(new)
            installation.note(new)
            installation.provide(new)
            new = self.planner.settled(new)
            new.model.provide(new.directory.root)
            steps = steps_between(old.unit_set, new.unit_set)
            starts = [step for step in steps if step.verb == "start"]
            if problems := operation.stop_wholly(step for step in steps if step.verb == "stop"):
                raise teardown_error(problems, self.planner.manager.name)
            self._adopt(new)
            with self._undone_on_error():
                installation.clean(old.unit_set, new.unit_set)
                refuse_held_ports(self.machine, new.model, (step.name for step in starts))
                installation.write(new, old)
                operation.driver.refresh(list(old.unit_set.units.values()), list(new.unit_set.units.values()))
                operation.start(starts, subjects)
                self.judge.refuse_live_conflicts(step.name for step in starts)
            needed = {item.key for item in installation.accounts.items(new.model, new.target)}
            if problems := installation.accounts.release(needed):
                raise teardown_error(problems, self.planner.manager.name)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Stop everything when the block fails; problems of that become a note of the error."""
        try:
            with told_plainly(self.directory.root):
                yield
        except BaseException as error:
            keep = self.planner.settings.keep_failed and self.phase is not Phase.CLAIMED
            try:
                self.stop(keep_state=keep)
            except NixprocError as problem:
                error.add_note(str(problem))
            if keep:
                error.add_note(f"the state is kept in {self.directory.root}")
            raise

    @property
    def is_in_use(self) -> bool:
        """Whether the system is up, this process's own, and on the machine on which it was started."""
        return self.phase is Phase.OPEN and not self._has_lost_machine and self.lease.is_ours

    @to_its_end
    def stop(self, *, keep_state: bool = False) -> None:
        """Take everything down in reverse order and remove the state, unless it is to be kept.

        Goes on past problems, and raises :class:`~pytest_nixproc.errors.TeardownError` with all of them at the end.
        Does nothing when nothing is deployed, nor in a forked child, which does not speak for its parent. It waits for
        what other threads start and stop, and an exception of a signal handler is raised at its end.
        """
        if self.is_deployed and self.lease.is_ours:
            with self.planner.settings.uninterrupted(), unhurried(), exclusively(self._operation):
                if self.is_deployed:
                    self._undo(keep_state=keep_state)

    def _undo(self, *, keep_state: bool) -> None:
        problems = [] if self.phase is Phase.CLAIMED else self._take_down()
        is_left = self.phase in (Phase.UNREACHABLE, Phase.OCCUPIED)
        rest = ""
        if self.phase is not Phase.CLAIMED and not is_left:
            stays = [] if keep_state else collect_problems(self.installation.remove)
            problems += [] if self._has_lost_machine else collect_problems(self.installation.accounts.release)
            problems += stays
            rest, is_left = self.installation.rest, bool(stays)
        if rest:
            problems += collect_problems(partial(self.lease.leave_rest, rest))
        else:
            problems += collect_problems(self.lease.leave if is_left else self.lease.give_back)
        if self._operation is not None and self.phase is not Phase.CLAIMED:
            if keep_state:
                self.lease.note_kept(self.installation.journal)
            self.installation.journal.close()
        self.phase = Phase.OVER
        if not is_left and not keep_state and self._operation is not None:
            for name in self.operation.plan.model:
                self.timeline.add("removed", name)
        if problems:
            raise teardown_error(problems, self.planner.manager.name)

    @property
    def _has_lost_machine(self) -> bool:
        """Tell whether the machine is down, or is not the one any more on which the system was started."""
        return not self.machine.lifecycle.is_up or self.machine.lifecycle.boot_count != self._boots

    def _take_down(self) -> list[str]:
        """Stop everything that runs; return the problems."""
        problems = [] if self._has_lost_machine else collect_problems(self._stop_all)
        if self._has_lost_machine:
            # How the machine came to be down is told by who has booted it, and is no problem of the system's. But the
            # driver may hold something.
            collect_problems(self._close)
            return []
        return problems

    def _stop_all(self) -> list[str]:
        """Stop the instances and their manager, and end processes that are left; return the problems."""
        operation = self.operation
        # A guardian that was killed or frozen is noticed now, and replaced for all that follows.
        problems = collect_problems(self.machine.processes.sync_exits)
        deployed = operation.plan.unit_set
        running = {name: unit for name, unit in deployed.units.items() if name in operation.context.running}
        problems += operation.stop(steps_between(UnitSet(running, deployed.dependencies), UnitSet()))
        # A manager that was never opened is not asked.
        was_opened = self.phase is not Phase.INSTALLED
        strays = operation.observer.strays if was_opened else partial(self.machine.processes.strays, self.directory.tag)
        was_open = self.phase is Phase.OPEN
        problems += collect_problems(self._close)
        if was_open and self.phase is not Phase.UNREACHABLE:
            problems += collect_problems(
                lambda: [f"left after the teardown: {item}" for item in operation.driver.remains()]
            )
        left = collect_problems(partial(operation.end_left_behind, strays, self.directory.tag))
        if left and (stuck := collect_problems(partial(operation.still_running, strays))):
            self.phase = Phase.OCCUPIED
            left += stuck
        problems += left
        return problems + collect_problems(lambda: held_ports(self.machine, operation.plan.model))

    def _close(self) -> list[str]:
        """Stop the manager, and return the problems; where it does not answer, the rest is left to a later recovery."""
        if self.phase is Phase.INSTALLED:
            return []
        try:
            self.operation.driver.close(self.machine.deadline(CLOSE_SECONDS))
        except Unreachable as error:
            self.phase = Phase.UNREACHABLE
            return [str(error), LEFT_TO_REAPER.format(root=self.directory.root)]
        return []

    def abandon(self) -> None:
        """Leave the system running and its state in place; ``nixproc end`` takes it down."""
        if self.lease.is_ours:
            self.lease.keep(self.installation.journal)
            self.detach()

    def detach(self) -> None:
        """Leave the system running, to whoever else takes it down."""
        if not self.lease.is_ours:
            return
        self.machine.lifecycle.release()
        self.machine.lifecycle.unguard(self.directory.root)
        self.installation.journal.close()
        self.phase = Phase.OVER


def exclusively(operation: Operation | None) -> AbstractContextManager[None]:
    """Let other threads start and stop nothing of a system for the time of a ``with`` block."""
    return nullcontext() if operation is None else operation.context.ends.exclusively(operation.plan.model)


def teardown_error(problems: Iterable[str], manager: str) -> TeardownError:
    """Return the error of a teardown; a manager that does not answer is told of once, however often it was asked."""
    return TeardownError(list(dict.fromkeys(problems)), f"the system on {manager}")
