"""Watching instances that were started, until each of them is ready: none of them may die, or take too long."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from pytest_nixproc._deployment.context import DeploymentContext, Subject
from pytest_nixproc._deployment.own_files import said_in_files
from pytest_nixproc._deployment.problems import log_sizes
from pytest_nixproc._deployment.programs import program_problem
from pytest_nixproc._deployment.readiness import Candidate, ReadinessChecker, condition_of, reads_log
from pytest_nixproc._inspection.answers import Answer, Answers, rivals, strangers
from pytest_nixproc.errors import StartError
from pytest_nixproc.machines.waiting import Deadline, pause_after
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.values.commands import describe_status
from pytest_nixproc.values.units import Status, Unit

SETTLE_SECONDS: Final = 0.1
"""How long an instance without ports and without a condition must live to count as ready."""

SUCCESSION_SECONDS: Final = 0.5
"""How long the PID file may take to name the daemon, after the end of what it has named on the way there."""

FIRST_QUESTION_SECONDS: Final = 0.02
PROGRESS_SECONDS: Final = 2.0
LOG_TAIL: Final = 2000


@dataclass
class Wait:
    """The wait for one instance, from its own start on."""

    begun: float
    """The time on the machine's clock when it began, in seconds."""

    deadline: Deadline
    is_awaited: bool
    """Whether anything can go on as soon as it is ready: otherwise, that is looked at when its manager is done."""

    is_expected: bool = False
    """Whether its manager has done its part: until then, it may be anything but ready."""

    logged: int = 0
    """How much it had logged before its start, in bytes."""

    unmet: str = ""
    """Why it was not ready when last looked at."""

    def __post_init__(self) -> None:
        self.next_look = self.begun if self.is_awaited else self.begun + self.deadline.seconds

    def expect(self, now: float) -> None:
        """Note that the manager has done its part."""
        self.is_expected = True
        self.next_look = now

    def put_off(self, now: float, unmet: str) -> None:
        """Note an unmet condition; the pause until the next look grows, but does not exceed the time that is left."""
        self.unmet = unmet
        self.next_look = min(now + pause_after(now - self.begun), self.begun + self.deadline.seconds)


class Watch:
    """The wait for instances that were started, of which conditions see the ``subjects``."""

    def __init__(self, context: DeploymentContext, subjects: Mapping[str, Subject]) -> None:
        self.context = context
        self.subjects = subjects
        self.driver = context.driver
        self.machine = context.machine
        self.reported = self.machine.clock.now()
        self.waits: dict[str, Wait] = {}
        self.pids: dict[str, int] = {}
        self.seen: dict[tuple[str, int | None], float] = {}
        self.ended: dict[tuple[str, int | None], float] = {}
        self.next_question = self.reported + FIRST_QUESTION_SECONDS
        self.checker = ReadinessChecker(
            self.machine, {"PATH": self.machine.facts.path_variable, **self.driver.target.tags}
        )

    def add(
        self, names: Iterable[str], deadline: Deadline, awaited: Container[str], *, fresh: Iterable[str] = ()
    ) -> None:
        """Wait for instances that the manager is about to start; others can go on when the ``awaited`` are ready.

        What the ``fresh`` have logged so far, in earlier runs, makes none of them ready.
        """
        now = self.machine.clock.now()
        self.waits |= {name: Wait(now, deadline, name in awaited) for name in names}
        told = [name for name in fresh if reads_log(condition_of(self.context.model[name]))]
        for name, size in log_sizes(self.driver, self.context.units, told).items():
            self.waits[name].logged = size

    def expect(self, names: Iterable[str]) -> None:
        """Treat instances as started: from now on, they may be found dead, or too slow."""
        now = self.machine.clock.now()
        for name in names:
            if name in self.waits:
                self.waits[name].expect(now)

    def until_ready(self, names: Iterable[str], deadline: Deadline) -> None:
        """Wait until instances that run are ready; raises :class:`~pytest_nixproc.errors.StartError`."""
        names = list(names)
        self.add(names, deadline, names)
        self.expect(names)

        def are_ready() -> bool:
            self.look()
            return not self.waits

        if not deadline.until(are_ready):
            # A look that comes too late raises.
            self.look()

    @property
    def remaining(self) -> float:
        """Seconds until the time of an instance is up."""
        return min((wait.deadline.remaining for wait in self.waits.values()), default=0.0)

    def look(self) -> list[str]:
        """Check the instances that are due, and return those that are ready; raises for dead and late ones.

        That is :class:`~pytest_nixproc.errors.StartError`.
        """
        now = self.machine.clock.now()
        due = [name for name, wait in self.waits.items() if wait.next_look <= now]
        expected = [name for name, wait in self.waits.items() if wait.is_expected]
        unmet = self._look_at(due, self._see_silent(due, expected))
        for name, what in unmet.items():
            self.waits[name].put_off(self.machine.clock.now(), what)
        ready = [name for name, what in unmet.items() if not what]
        for name in ready:
            if not self.waits.pop(name).is_expected:
                # It answers before its manager says that it has started it.
                self.context.timeline.add("spawned", name)
            self.context.timeline.add("ready", name)
        if left := [name for name in expected if name in self.waits]:
            self._refuse_dead(left)
            self._refuse_late(left)
        if self.waits:
            self._report()
        return ready

    def _look_at(self, due: Sequence[str], silent: Mapping[str, Status]) -> dict[str, str]:
        """Return why instances are not ready yet, or empty texts.

        Whose the answers are is looked at when all have come: by one look, which only those cost that have answered.
        """
        others: dict[Answer, str] = {}
        unmet: dict[str, str] = {}
        doubtful = list(due)
        while doubtful:
            answers = Answers(self.machine.network, others)
            unmet |= {name: self._unmet(name, silent.get(name), answers) for name in doubtful}
            statuses = self._statuses([name for name in doubtful if not unmet[name] and name not in silent])
            unmet |= {name: status.text or "it does not run" for name, status in statuses.items() if not status.running}
            given = [answer for answer in answers.given if not unmet[answer.instance]]
            found = strangers(self.driver, self.context.units, statuses, given)
            # Another part of the condition, or another address, may do.
            doubtful = sorted({answer.instance for answer in found})
            others |= found
        return unmet

    def _statuses(self, names: Sequence[str]) -> dict[str, Status]:
        """Return the statuses of instances whose conditions hold.

        The last line of a log, or a file that was made, is still there when who has made it is not.
        """
        by_unit = self.driver.status([self.context.units[name] for name in names]) if names else {}
        return {name: by_unit[self.context.units[name].name] for name in names}

    def _log(self, name: str) -> str:
        """Return what an instance has logged since its start."""
        wait, unit = self.waits[name], self.context.units[name]
        if wait.logged and self.driver.log_size(unit) < wait.logged:
            # It was emptied, or is another one.
            wait.logged = 0
        return self.driver.log(unit, wait.logged)

    def _unmet(self, name: str, status: Status | None, answers: Answers) -> str:
        unit, instance = self.context.units[name], self.context.model[name]
        condition = condition_of(instance)
        if condition is not None:
            candidate = Candidate(name, instance, self.subjects[name], answers, partial(self._log, name))
            # A daemon may listen, and accept nobody, long before its manager has it: few can knock until then.
            if unit.mode == "daemon":
                return self.driver.unmet(unit) or self.checker.unmet(condition, candidate)
            return self.checker.unmet(condition, candidate) or self.driver.unmet(unit)
        if status is None:
            return "its manager is starting it"
        if not status.running:
            return status.text
        if status.pid is None:
            return "its program has not been started"
        settled = self.machine.clock.now() - self.seen[name, status.pid] >= SETTLE_SECONDS
        return self.driver.unmet(unit) if settled else "it has only just been started"

    def _see_silent(self, due: Sequence[str], expected: Sequence[str]) -> dict[str, Status]:
        """Return the statuses of instances without a condition, if one of them is due: they settle side by side."""
        silent = [name for name in expected if condition_of(self.context.model[name]) is None]
        if not set(silent) & set(due):
            return {}
        statuses = self.driver.status([self.context.units[name] for name in silent])
        found = {name: statuses[self.context.units[name].name] for name in silent}
        for name, status in found.items():
            if status.running and status.pid is not None:
                self.seen.setdefault((name, status.pid), self.machine.clock.now())
        return found

    def _refuse_dead(self, expected: Sequence[str]) -> None:
        """Raise when an instance has ended; the manager is asked only about those whose process is not seen alive.

        That takes no more than a tenth of the time: it has programs to start meanwhile.
        """
        ended = self.machine.processes.ended([self.pids[name] for name in expected if name in self.pids])
        suspects = [name for name in expected if self.pids.get(name) is None or self.pids[name] in ended]
        begun = self.machine.clock.now()
        if not suspects or not (ended or begun >= self.next_question):
            return
        statuses = self.driver.status([self.context.units[name] for name in suspects])
        self.next_question = self.machine.clock.now() + 10 * (self.machine.clock.now() - begun)
        for name in suspects:
            status = statuses[self.context.units[name].name]
            if status.running and status.pid:
                self.pids[name] = status.pid
            elif status.has_ended and not self._may_be_followed(name, status):
                raise self._death(name, status)

    def _may_be_followed(self, name: str, status: Status) -> bool:
        """Tell whether a process that has just ended well was perhaps on the way to the daemon."""
        if self.context.units[name].mode != "daemon" or status.exit_status != 0:
            return False
        now = self.machine.clock.now()
        return now - self.ended.setdefault((name, status.pid), now) < SUCCESSION_SECONDS

    def _death(self, name: str, status: Status) -> StartError:
        seconds = self.machine.clock.now() - self.waits[name].begun
        brief = f"{name} did not start: it {ending_of(status)} after {seconds:.2f} s"
        waited = f"waited for: {condition_of(self.context.model[name]) or 'its manager to say that it runs'}"
        return self._error(name, brief, waited, f"its manager says: {status.text}")

    def _refuse_late(self, expected: Sequence[str]) -> None:
        """Raise when the time of an instance is up."""
        for name in expected:
            wait = self.waits[name]
            if not wait.deadline.remaining:
                brief = f"{name} is not ready after {wait.deadline.seconds:g} s"
                unit = self.context.units[name]
                says = f"its manager says: {self.driver.status([unit])[unit.name].text}"
                raise self._error(name, brief, f"last seen: {name}: {wait.unmet}", says)

    def _error(self, name: str, brief: str, *details: str) -> StartError:
        return start_error(self.driver, self.context.units[name], self.context.model[name], brief, *details)

    def _report(self) -> None:
        """Report progress now and then while it takes long."""
        if self.machine.clock.now() - self.reported < PROGRESS_SECONDS:
            return
        self.reported = self.machine.clock.now()
        # An instance that was restarted has been ready more than once.
        count = len(set(self.context.timeline.order("ready")) - set(self.waits))
        name, wait = next(iter(self.waits.items()))
        ready = f"{count} of {len(self.context.model)} instances are ready"
        self.context.settings.progress(f"{ready}, waiting for {name}: {wait.unmet}")


def ending_of(status: Status) -> str:
    """Return in words how an instance has ended, as far as its manager knows."""
    return "ended" if status.exit_status is None else describe_status(status.exit_status)


def start_error(driver: Driver, unit: Unit, instance: Instance, brief: str, *details: str) -> StartError:
    """Return the error of an instance that did not start, with the holders of its ports, and the end of its log."""
    log = driver.log(unit)
    if log.strip():
        said = [f"end of its log:\n{log[-LOG_TAIL:].rstrip()}"]
    else:
        said = ["its log is empty", *said_in_files(instance.pkg, driver.machine, driver.target)]
    problem = filter(None, [program_problem(unit, driver.machine)])
    return StartError(brief, details="\n".join((*details, *problem, *rivals(driver, unit, instance), *said)))
