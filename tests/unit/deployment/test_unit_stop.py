"""The stop of units: with growing force, and with a report of every kill."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc._deployment.unit_stop import UnitStop
from pytest_nixproc.errors import MachineError, Unreachable
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess

if TYPE_CHECKING:
    from tests.unit.conftest import FakeDriver, MakeModel

SECONDS = 5.0


@pytest.fixture
def web(driver: FakeDriver, make_model: MakeModel, units: Any) -> UnitStop:
    """Return the stop of one running unit."""
    by_name = units(make_model(web={}))
    driver.activate(list(by_name.values()), driver.machine.deadline(1))
    return UnitStop(driver, by_name, {"web": driver.pids["unit-web"]}, SECONDS)


@pytest.fixture
def process(machine: FakeMachine, web: UnitStop) -> FakeProcess:
    """Return the process of the unit."""
    return machine.processes.by_pid[web.pids["web"]]


def test_clean_stop_is_no_problem(machine: FakeMachine, web: UnitStop, process: FakeProcess) -> None:
    """A process that ends when its manager asks is clean, and takes no time."""
    assert web.carry_out() == []
    assert process.received == [signal.SIGTERM]
    assert machine.clock.now() < 0.1


def test_force_grows_on_the_whole_tree(machine: FakeMachine, web: UnitStop, process: FakeProcess) -> None:
    """After the manager's time come SIGTERM and then SIGKILL, each for the process and all below it, and a report."""
    child = machine.processes.by_pid[machine.processes.fork(process.pid)]
    for member in (process, child):
        member.ignored = frozenset({signal.SIGTERM})
    (problem,) = web.carry_out()
    assert problem == f"web did not stop within 5 s: process {process.pid} was ended by SIGKILL after 6.0 s"
    assert process.received == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]
    assert child.received == [signal.SIGTERM, signal.SIGKILL]
    assert SECONDS + 1 <= machine.clock.now() < SECONDS + 1.5


def test_second_request_may_be_enough(machine: FakeMachine, web: UnitStop, process: FakeProcess) -> None:
    """A process that gives in to the second SIGTERM is not killed, but reported."""
    process.ignored = frozenset({signal.SIGTERM})
    machine.clock.after(SECONDS - 0.1, lambda: setattr(process, "ignored", frozenset()))
    (problem,) = web.carry_out()
    assert problem == f"web did not stop within 5 s: process {process.pid} was ended by SIGTERM after 5.0 s"
    assert signal.SIGKILL not in process.received


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(SECONDS, "web did not stop within 5 s"), (2.0, "web was given 2.0 of its 5 s to stop")],
)
def test_managers_own_kill(
    machine: FakeMachine, web: UnitStop, process: FakeProcess, seconds: float, told: str
) -> None:
    """A manager's kill is reported with when it really was, also where it did not wait for as long as it should."""
    process.ignored = frozenset({signal.SIGTERM})
    machine.clock.after(seconds, lambda: machine.processes.end(process.pid, -signal.SIGKILL))
    assert web.carry_out() == [f"{told}: process {process.pid} was killed by its manager after {seconds:.1f} s"]


def test_ends_are_seen_meanwhile(
    driver: FakeDriver, machine: FakeMachine, web: UnitStop, process: FakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a process was killed is known from looks during the stop, which others may make last much longer."""

    def deactivate(*_: object) -> None:
        machine.clock.advance(2)
        machine.processes.end(process.pid, -signal.SIGKILL)
        assert web.look() == {"web"}
        machine.clock.advance(2)

    monkeypatch.setattr(driver, "deactivate", deactivate)
    (problem,) = web.carry_out()
    assert problem.endswith("was killed by its manager after 2.0 s")


def test_killed_before_is_not_the_stops_fault(machine: FakeMachine, web: UnitStop, process: FakeProcess) -> None:
    """A process that had been killed before the stop is not reported by it."""
    machine.processes.end(process.pid, -signal.SIGKILL)
    assert web.carry_out() == []


def test_manager_may_be_gone_when_asked_for_the_manner_of_an_end(
    driver: FakeDriver, web: UnitStop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is one more problem, and does not cut the teardown short."""

    def exit_status(*_: object) -> int:
        raise Unreachable("the manager does not answer")

    monkeypatch.setattr(driver, "exit_status", exit_status)
    assert web.carry_out() == ["the manager does not answer"]


def test_broken_manager_does_not_save_a_process(
    driver: FakeDriver, machine: FakeMachine, web: UnitStop, process: FakeProcess
) -> None:
    """When the manager fails, the process is ended all the same; the report does not claim that anybody has waited."""
    driver.orders.broken.add("deactivate")
    ended = f"process {process.pid} was ended by SIGTERM after 0.0 s"
    assert web.carry_out() == ["deactivate is broken", f"web was given 0.0 of its 5 s to stop: {ended}"]
    assert machine.processes.running() == []


def test_manager_that_gives_up_costs_no_time(
    driver: FakeDriver, machine: FakeMachine, web: UnitStop, process: FakeProcess
) -> None:
    """A process that its manager gives up has the rest of its time, before it is killed."""
    driver.orders.broken.add("deactivate")
    process.ignored = frozenset({signal.SIGTERM})
    machine.clock.after(SECONDS - 1, lambda: machine.processes.end(process.pid))
    _, problem = web.carry_out()
    assert problem.endswith(f"process {process.pid} was ended by SIGTERM after 4.0 s")


def test_unkillable_process_is_reported(
    machine: FakeMachine, web: UnitStop, process: FakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that survives even SIGKILL is reported with its pid, after a bounded time."""
    monkeypatch.setattr(machine.processes, "signal", lambda *_: None)
    (problem,) = web.carry_out()
    assert problem.startswith(f"web did not stop within 5 s: process {process.pid} survives SIGKILL, 11.0 s after")
    assert machine.clock.now() < SECONDS + 7


def test_log_since_the_stop(machine: FakeMachine, web: UnitStop, process: FakeProcess) -> None:
    """A problem has what the instance has logged since it was asked to stop, and no more than the end of that."""
    assert process.command.output
    process.ignored = frozenset({signal.SIGTERM})
    machine.files.append(process.command.output, "serving\n")
    machine.clock.after(1, lambda: machine.files.append(process.command.output or "", "x" * 9000 + "\nstill busy\n"))
    (problem,) = web.carry_out()
    _, heading, *lines = problem.splitlines()
    assert heading == "  logged since the stop was asked for:"
    assert lines[-1] == "  | still busy"
    assert "serving" not in problem
    assert len(problem) < 3000


def test_log_that_cannot_be_read_is_left_out(
    driver: FakeDriver, web: UnitStop, process: FakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log cannot be read any more, the problem stands without it."""

    def log(*_: object) -> str:
        raise MachineError("gone")

    process.ignored = frozenset({signal.SIGTERM})
    monkeypatch.setattr(driver, "log", log)
    (problem,) = web.carry_out()
    assert problem.endswith("was ended by SIGKILL after 6.0 s")
