"""Waiting for instances that were started: ready in order, and none of them dead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pytest_nixproc.deployment.observation import Owners, listeners, who_holds
from pytest_nixproc.deployment.planner import Settings
from pytest_nixproc.deployment.readiness import Looker, Subject, condition_of
from pytest_nixproc.deployment.timeline import Timeline
from pytest_nixproc.errors import StartError, WaitTimeout
from pytest_nixproc.machines.api import describe_status
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.api import Driver, Status, Unit
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.system import ProcessesModel

SETTLE_SECONDS: Final = 0.1
"""How long an instance without ports and without a condition must live to count as ready."""

FIRST_QUESTION_SECONDS: Final = 0.02
PROGRESS_SECONDS: Final = 2.0
LOG_TAIL: Final = 2000


class Watch:
    """The wait for instances that were started side by side."""

    def __init__(
        self,
        model: ProcessesModel,
        units: Mapping[str, Unit],
        subjects: Mapping[str, Subject],
        driver: Driver,
        timeline: Timeline,
        settings: Settings,
    ) -> None:
        self.model = model
        self.units = units
        self.subjects = subjects
        self.driver = driver
        self.timeline = timeline
        self.settings = settings
        self.machine = driver.machine
        self.begun = self.reported = self.machine.now()
        self.pending = list(units)
        self.pids: dict[str, int] = {}
        self.seen: dict[tuple[str, int | None], float] = {}
        self.next_question = self.begun + FIRST_QUESTION_SECONDS
        self.looker = Looker(self.machine, {"PATH": self.machine.path_variable, **driver.target.tags})

    def until_ready(self, deadline: Deadline) -> None:
        """Wait until all instances are ready; raises :class:`~pytest_nixproc.errors.StartError`."""
        try:
            wait_until(self._look, deadline, "wait for instances to be ready")
        except WaitTimeout as error:
            name = self.pending[0]
            brief = f"{name} is not ready after {deadline.seconds:g} s"
            says = f"its manager says: {self._status(name).text}"
            raise self._error(name, brief, error.details, says) from error

    def _look(self) -> str:
        """Look at the pending instances in order: all have to be ready in any case."""
        while self.pending:
            name = self.pending[0]
            if missing := self._missing(name):
                self._refuse_dead()
                self._report(missing)
                return f"{name}: {missing}"
            self.timeline.add("ready", name)
            self.pending.pop(0)
        return ""

    def _missing(self, name: str) -> str:
        condition = condition_of(self.model[name])
        if condition is not None:
            return self.looker.missing(condition, self.subjects[name]) or self.driver.missing(self.units[name])
        status = self._see_silent()[name]
        if not status.running:
            return status.text
        if status.pid is None:
            return "its program has not been started"
        settled = self.machine.now() - self.seen[name, status.pid] >= SETTLE_SECONDS
        return self.driver.missing(self.units[name]) if settled else "it has only just been started"

    def _see_silent(self) -> dict[str, Status]:
        """Ask for all pending instances that say nothing of themselves: they settle side by side."""
        silent = [name for name in self.pending if condition_of(self.model[name]) is None]
        statuses = self.driver.status([self.units[name] for name in silent])
        found = {name: statuses[self.units[name].name] for name in silent}
        for name, status in found.items():
            if status.running and status.pid is not None:
                self.seen.setdefault((name, status.pid), self.machine.now())
        return found

    def _status(self, name: str) -> Status:
        return self.driver.status([self.units[name]])[self.units[name].name]

    def _refuse_dead(self) -> None:
        """Raise when an instance has ended; the manager is asked only about those whose process is not seen alive."""
        ended = self.machine.ended(self.pids.values())
        suspects = [name for name in self.pending if self.pids.get(name) is None or self.pids[name] in ended]
        if suspects and (ended or self.machine.now() >= self.next_question):
            self._question(suspects)

    def _question(self, suspects: Sequence[str]) -> None:
        """Ask the manager about instances, no more than a tenth of the time: it has programs to start meanwhile."""
        begun = self.machine.now()
        statuses = self.driver.status([self.units[name] for name in suspects])
        self.next_question = self.machine.now() + 10 * (self.machine.now() - begun)
        for name in suspects:
            status = statuses[self.units[name].name]
            if status.running and status.pid:
                self.pids[name] = status.pid
            elif status.has_ended:
                raise self._death(name, status)

    def _death(self, name: str, status: Status) -> StartError:
        seconds = self.machine.now() - self.begun
        ending = "ended" if status.exit_status is None else describe_status(status.exit_status)
        brief = f"{name} did not start: it {ending} after {seconds:.2f} s"
        waited = f"waited for: {condition_of(self.model[name]) or 'its manager to say that it runs'}"
        return self._error(name, brief, waited, f"its manager says: {status.text}")

    def _error(self, name: str, brief: str, *details: str) -> StartError:
        return start_error(self.driver, self.units[name], self.model[name], brief, *details)

    def _report(self, missing: str) -> None:
        """Report progress now and then while it takes long."""
        if self.machine.now() - self.reported < PROGRESS_SECONDS:
            return
        self.reported = self.machine.now()
        # An instance that was restarted has been ready more than once.
        count = len(set(self.timeline.order("ready")) - set(self.pending))
        ready = f"{count} of {len(self.model)} instances are ready"
        self.settings.progress(f"{ready}, waiting for {self.pending[0]}: {missing}")


def start_error(driver: Driver, unit: Unit, instance: Instance, brief: str, *details: str) -> StartError:
    """Return an error about an instance that did not start, with who has its ports, and what its log says."""
    log = driver.log(unit)
    tail = f"end of its log:\n{log[-LOG_TAIL:].rstrip()}" if log.strip() else "its log is empty"
    return StartError(brief, details="\n".join((*details, *rivals(driver, unit, instance), tail)))


def rivals(driver: Driver, unit: Unit, instance: Instance) -> Iterable[str]:
    """Say who else has the declared TCP ports of an instance that is not ready."""
    ports = set(instance.declared_ports.values())
    if not ports:
        return ()
    status = driver.status([unit])[unit.name]
    main = {status.pid: unit.key} if status.running and status.pid else {}
    owners = Owners(driver.machine, driver.target, main)
    everybody = listeners(driver, {unit.name: status}, main, ports)
    found = [item for item in everybody if item.protocol == "tcp" and item.port in ports]
    # While the instance runs, what cannot be seen may be its own.
    others = [item for item in found if (owners.owner(item.pid) is None if item.pid else not main)]
    return dict.fromkeys(f"TCP port {item.port}: {who_holds(driver.machine, item.pid)}" for item in others)
