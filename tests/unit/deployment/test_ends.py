"""Ends of instances that nobody has asked for: each is told once, whatever a test does meanwhile."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc._deployment.ends import RESTART_SECONDS
from pytest_nixproc.errors import ConflictError, StartError
from pytest_nixproc.testing.fake_machine import FakeMachine, each, ends, listens
from pytest_nixproc.values.findings import Finding

if TYPE_CHECKING:
    from pytest_nixproc._system.system import System
    from tests.unit.conftest import FakeDriver, MakeModel, Orders


@pytest.fixture
def up(system: System, make_model: MakeModel, machine: FakeMachine) -> System:
    """Return a system of two instances."""
    for name, port in {"db": 8001, "web": 8002}.items():
        machine.processes.program(f"/fake/{name}", listens(port))
    system.start(lambda _: make_model(db={"port": 8001}, web={"port": 8002}))
    return system


def told(findings: list[Finding]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return the codes, severities and instances of findings."""
    return [(finding.code, finding.severity, finding.instances) for finding in findings]


WEB_ENDED = [("NP215", "error", ("web",))]


def end(machine: FakeMachine, system: System, name: str, status: int = 70) -> None:
    """End an instance as if it had done so by itself."""
    pid = system[name].pid
    assert pid is not None
    machine.processes.end(pid, status)


def test_end_is_told_once(up: System, machine: FakeMachine) -> None:
    """An instance that ends by itself is told with how and when it ended, and not again."""
    assert up.check_ends() == []
    machine.clock.advance(2)
    end(machine, up, "web")
    (finding,) = up.check_ends()
    assert finding.problem.startswith("web ended with status 70 within 2.0 s after it was ready, by itself: ")
    assert up.check_ends() == []
    assert list(up.findings) == [finding]


def test_end_is_an_event(up: System, machine: FakeMachine) -> None:
    """The timeline has the end, with how it came to be."""
    machine.clock.advance(1)
    end(machine, up, "web", -signal.SIGSEGV)
    up.check_ends()
    (event,) = [event for event in up.timeline if event.happening == "ended"]
    assert (event.instance, event.detail) == ("web", "was killed by signal 11, not asked to")


@pytest.mark.parametrize("verb", ["stop", "restart", "kill", "stopped"])
def test_end_that_a_test_has_asked_for(up: System, verb: str) -> None:
    """What a test does to an instance is no end of its own."""
    if verb == "stopped":
        with up["web"].stopped():
            assert up.check_ends() == []
    else:
        getattr(up["web"], verb)()
    assert up.check_ends() == []
    up["web"].start()
    assert up.check_ends() == []


@pytest.mark.parametrize("verb", ["stop", "restart", "start"])
def test_end_before_a_verb_is_told(up: System, machine: FakeMachine, verb: str) -> None:
    """A test that stops or starts an instance, which has ended by itself before that, does not hide it."""
    end(machine, up, "web")
    getattr(up["web"], verb)()
    assert told(up.check_ends()) == WEB_ENDED


def test_end_before_a_new_start_is_told_again(up: System, machine: FakeMachine) -> None:
    """An instance that was started again can end again."""
    for _ in range(2):
        end(machine, up, "web")
        assert told(up.check_ends()) == WEB_ENDED
        up["web"].start()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, []), (signal.SIGHUP, WEB_ENDED)])
def test_signals(up: System, number: int, expected: object) -> None:
    """A signal that asks for an end is the test's own doing; a server that dies of a reload is not."""
    up["web"].kill(number)
    assert not up["web"].is_running
    assert told(up.check_ends()) == expected


def test_instance_that_was_killed_runs_again_and_dies(up: System, machine: FakeMachine) -> None:
    """That a test has killed one process does not excuse the end of the next one."""
    up["web"].kill()
    up["web"].start()
    end(machine, up, "web")
    assert told(up.check_ends()) == WEB_ENDED


def test_instance_that_may_end(system: System, make_model: MakeModel, machine: FakeMachine) -> None:
    """An instance whose model says so may end, and a look at the running system does not miss it."""
    machine.processes.program("/fake/job", ends(after=5))
    system.start(lambda _: make_model(job={"may_end": True}))
    machine.clock.advance(6)
    assert (system.check_ends(), system.inspect()) == ([], [])


def test_looks_and_ends_do_not_tell_twice(up: System, machine: FakeMachine) -> None:
    """What a look at the system has told is not told as an end, nor the other way round."""
    end(machine, up, "web")
    assert [finding.code for finding in up.inspect() if finding.code != "NP202"] == ["NP201"]
    assert up.check_ends() == []
    end(machine, up, "db")
    assert told(up.check_ends()) == [("NP215", "error", ("db",))]
    assert [finding.instances for finding in up.inspect() if finding.code == "NP201"] == [("web",)]


def test_stopped_instances_are_no_finding(up: System) -> None:
    """An instance that a test has stopped need not run; one that it has killed is missed."""
    with up["web"].stopped():
        assert up.inspect() == []
    up["web"].kill()
    with pytest.raises(ConflictError, match="NP201 error: web does not run"):
        up.assert_no_conflicts()


@pytest.mark.parametrize(("seconds", "severity"), [(1.0, "warning"), (RESTART_SECONDS + 1, "error")])
def test_restart_by_the_manager(
    up: System, machine: FakeMachine, orders: Orders, seconds: float, severity: str
) -> None:
    """Where the manager starts an instance again in a moment, that is waited for, and is only a warning."""
    orders.restarts["unit-web"] = seconds
    end(machine, up, "web", 1)
    assert told(up.check_ends()) == [("NP215", severity, ("web",))]
    assert up.timeline.order("restarted") == (["web"] if severity == "warning" else [])
    assert up.check_ends() == []


def test_restart_that_a_test_has_seen(up: System, machine: FakeMachine, orders: Orders) -> None:
    """A test that asks for the new process before anybody has looked does not hide that the old one has ended."""
    orders.restarts["unit-web"] = 0.5
    end(machine, up, "web", 1)
    before = up["web"].is_running
    machine.clock.advance(1)
    assert (before, up["web"].is_running) == (False, True)
    assert told(up.check_ends()) == [("NP215", "warning", ("web",))]


def test_wait_until_the_manager_has_started_it_again(up: System, machine: FakeMachine, orders: Orders) -> None:
    """A test can wait until its manager has started again what has ended, and it answers."""
    orders.restarts["unit-web"] = 0.5
    up["web"].kill()
    begun = machine.clock.now()
    up["web"].wait_ready()
    assert up["web"].listening == {8002}
    assert 0.5 <= machine.clock.now() - begun < 1


def test_restart_of_what_a_test_has_killed(up: System, machine: FakeMachine, orders: Orders) -> None:
    """That a manager starts again what a test has killed is as the model says."""
    orders.restarts["unit-web"] = 0.5
    up["web"].kill()
    before = up["web"].is_running
    machine.clock.advance(1)
    assert (before, up["web"].is_running) == (False, True)
    assert up.check_ends() == []
    end(machine, up, "web", 1)
    assert told(up.check_ends()) == WEB_ENDED


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_look_while_an_instance_is_stopped(
    up: System, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """What another thread finds while an instance is being stopped or started is no end of its own."""
    seen: list[list[Finding]] = []
    for name in ("activate", "deactivate"):
        method = getattr(type(driver), name)

        def look_around(*arguments: Any, method: Any = method) -> Any:
            seen.append(up.check_ends())
            answer = method(*arguments)
            seen.append(up.check_ends())
            return answer

        monkeypatch.setattr(type(driver), name, look_around)
    getattr(up["web"], verb)()
    assert len(seen) == (2 if verb == "stop" else 4)
    assert not any(seen)


def test_end_right_after_readiness_refuses_the_start(
    system: System, make_model: MakeModel, machine: FakeMachine
) -> None:
    """An instance that ends as soon as it was ready has not started: the error has its log."""
    machine.processes.program("/fake/web", each(listens(80), ends(3, output="no licence\n")))
    with pytest.raises(StartError) as caught:
        system.start(lambda _: make_model(web={"port": 80}))
    assert "no licence" in str(caught.value)
    assert not system.is_deployed
