"""Stopping with growing force."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc._deployment.stopping import collect_problems, end_strays, stop_units
from pytest_nixproc.errors import NixprocError, Unreachable
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess, ignores
from pytest_nixproc.values.commands import Spawn

if TYPE_CHECKING:
    from tests.unit.conftest import FakeDriver, MakeModel

SECONDS = 5.0
TAG = "NIXPROC_DEPLOYMENT=/srv"


@pytest.fixture
def web(driver: FakeDriver, make_model: MakeModel, units: Any) -> dict[str, Any]:
    """Return the arguments for stopping one running unit."""
    by_name = units(make_model(web={}))
    driver.activate(list(by_name.values()), driver.machine.deadline(1))
    return {"units": by_name, "pids": {"web": driver.pids["unit-web"]}, "seconds": SECONDS}


def process_of(driver: FakeDriver, machine: FakeMachine) -> FakeProcess:
    """Return the process of the unit."""
    return machine.processes.by_pid[driver.pids["unit-web"]]


def test_clean_stop_is_no_problem(driver: FakeDriver, machine: FakeMachine, web: dict[str, Any]) -> None:
    """A process that ends when its manager asks is clean, and takes no time."""
    assert stop_units(driver, **web) == []
    assert process_of(driver, machine).received == [signal.SIGTERM]
    assert machine.clock.now() < 0.1


def test_force_grows_on_the_whole_tree(driver: FakeDriver, machine: FakeMachine, web: dict[str, Any]) -> None:
    """After the manager's time come SIGTERM and then SIGKILL, each for the process and all below it, and a report."""
    process = process_of(driver, machine)
    child = machine.processes.by_pid[machine.processes.fork(process.pid)]
    for member in (process, child):
        member.ignored = frozenset({signal.SIGTERM})
    assert stop_units(driver, **web) == ["web did not stop within 5 s and was ended by SIGKILL"]
    assert process.received == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]
    assert child.received == [signal.SIGTERM, signal.SIGKILL]
    assert SECONDS + 1 <= machine.clock.now() < SECONDS + 1.5


def test_manager_may_be_gone_when_asked_for_the_manner_of_an_end(
    driver: FakeDriver, web: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is one more problem, and does not cut the teardown short."""

    def exit_status(*_: object) -> int:
        raise Unreachable("the manager does not answer")

    monkeypatch.setattr(driver, "exit_status", exit_status)
    assert stop_units(driver, **web) == ["the manager does not answer"]


def test_second_request_may_be_enough(driver: FakeDriver, machine: FakeMachine, web: dict[str, Any]) -> None:
    """A process that gives in to the second SIGTERM is not killed, but reported."""
    process = process_of(driver, machine)
    process.ignored = frozenset({signal.SIGTERM})
    machine.clock.after(SECONDS - 0.1, lambda: setattr(process, "ignored", frozenset()))
    assert stop_units(driver, **web) == ["web did not stop within 5 s and was ended by SIGTERM"]
    assert signal.SIGKILL not in process.received


def test_managers_own_kill_is_reported(driver: FakeDriver, machine: FakeMachine, web: dict[str, Any]) -> None:
    """A process that its manager had to kill did not stop cleanly either."""
    process = process_of(driver, machine)
    process.ignored = frozenset({signal.SIGTERM})
    machine.clock.after(SECONDS - 1, lambda: machine.processes.end(process.pid, -signal.SIGKILL))
    assert stop_units(driver, **web) == ["web did not stop within 5 s and was killed by its manager"]


def test_killed_before_is_not_the_stops_fault(driver: FakeDriver, machine: FakeMachine, web: dict[str, Any]) -> None:
    """A process that had been killed before the stop is not reported by it."""
    machine.processes.end(driver.pids["unit-web"], -signal.SIGKILL)
    assert stop_units(driver, **web) == []


def test_broken_manager_does_not_save_a_process(driver: FakeDriver, machine: FakeMachine, web: dict[str, Any]) -> None:
    """When the manager fails, the process is ended all the same, and both are reported."""
    driver.orders.broken.add("deactivate")
    assert stop_units(driver, **web) == ["deactivate is broken", "web did not stop within 5 s and was ended by SIGTERM"]
    assert machine.processes.running() == []


def test_unkillable_process_is_reported(
    driver: FakeDriver, machine: FakeMachine, web: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that survives even SIGKILL is reported with its pid, after a bounded time."""
    monkeypatch.setattr(machine.processes, "signal", lambda *_: None)
    assert stop_units(driver, **web) == [
        f"web did not stop within 5 s, and process {web['pids']['web']} survives SIGKILL"
    ]
    assert machine.clock.now() < SECONDS + 7


def test_strays_are_killed_and_described(machine: FakeMachine) -> None:
    """What still carries the tag is killed, one generation after the other, and shown; others are left alone."""
    tags = {"NIXPROC_DEPLOYMENT": "/srv"}
    machine.processes.program("/bin/stray", ignores(signal.SIGTERM))
    stray = machine.processes.spawn(Spawn(("/bin/stray", "-x"), tags))
    other = machine.processes.spawn(Spawn(("/bin/other",), {"NIXPROC_DEPLOYMENT": "/srv2"}))
    (problem,) = end_strays(machine, lambda: machine.processes.strays(TAG))
    assert problem.startswith(f"process {stray} was left behind, and killed: ")
    assert problem.endswith("/bin/stray -x")
    assert [process.pid for process in machine.processes.running()] == [other]
    assert end_strays(machine, lambda: machine.processes.strays(TAG)) == []


def test_attempt_turns_failures_into_problems() -> None:
    """A failure of ours or of the system becomes a problem; a mistake in the program does not."""

    def fail_with(error: Exception) -> list[str]:
        raise error

    assert collect_problems(lambda: ["a", "b"]) == ["a", "b"]
    assert collect_problems(lambda: fail_with(NixprocError("brief", details="facts"))) == ["brief\nfacts"]
    assert collect_problems(lambda: fail_with(OSError("disk full"))) == ["disk full"]
    with pytest.raises(ZeroDivisionError):
        collect_problems(lambda: fail_with(ZeroDivisionError()))
