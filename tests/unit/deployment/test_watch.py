"""Waiting for instances that were started."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc._deployment.context import DeploymentContext
from pytest_nixproc._deployment.timeline import Timeline
from pytest_nixproc._deployment.watching import PROGRESS_SECONDS, SETTLE_SECONDS, Watch
from pytest_nixproc._persistence.journal import Journal
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc.errors import StartError
from pytest_nixproc.machines.waiting import LONGEST_PAUSE
from pytest_nixproc.model import ready
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess, Script, each, ends, listens
from pytest_nixproc.values.commands import Spawn

if TYPE_CHECKING:
    from tests.unit.conftest import FakeDriver, MakeModel


class FakeSubject:
    """An instance that has logged something."""

    def __init__(self, machine: FakeMachine, path: str) -> None:
        self.machine = machine
        self.path = path

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.machine.files.read(self.path) or b"").decode()


class Started:
    """Instances that have just been started, and the watch over them."""

    def __init__(self, machine: FakeMachine, watch: Watch) -> None:
        self.machine = machine
        self.watch = watch
        self.progress: list[tuple[float, str]] = []

    def wait(self, seconds: float = 30) -> None:
        """Wait until all are ready."""
        self.watch.until_ready(self.watch.context.units, self.machine.deadline(seconds))

    def error(self, seconds: float = 30) -> str:
        """Wait for what does not become ready, and return what is said about it."""
        with pytest.raises(StartError) as caught:
            self.wait(seconds)
        return str(caught.value)


@pytest.fixture
def start(
    machine: FakeMachine, driver: FakeDriver, make_model: MakeModel, units: Any, settings: Settings, tmp_path: Path
) -> Callable[..., Started]:
    """Return a function that starts instances with scripts: attributes and script of each by name."""

    def start(**instances: tuple[dict[str, Any], Script]) -> Started:
        for name, (_, script) in instances.items():
            machine.processes.program(f"/fake/{name}", script)
        model = make_model(**{name: attributes for name, (attributes, _) in instances.items()})
        by_name = units(model)
        told = replace(settings, progress=lambda text: started.progress.append((machine.clock.now(), text)))
        subjects = {name: FakeSubject(machine, unit.log_file) for name, unit in by_name.items()}
        journal = Journal(f"{tmp_path}/journal")
        watch = Watch(
            DeploymentContext(model, by_name, driver, journal, Timeline(machine.clock.now), told, "fake"), subjects
        )
        started = Started(machine, watch)
        driver.activate(list(by_name.values()), machine.deadline(1))
        return started

    return start


def test_ready_when_the_ports_are_open(start: Callable[..., Started]) -> None:
    """A server is ready when its port is open, and no later than the next look."""
    started = start(web=({"port": 80}, listens(80, after=0.5)))
    started.wait()
    assert started.watch.context.timeline.order("ready") == ["web"]
    assert 0.5 <= started.machine.clock.now() <= 0.5 + LONGEST_PAUSE


def test_daemon_is_not_knocked_at_before_its_pid_file(
    start: Callable[..., Started], driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that its manager does not have yet is not asked for a connection: it might accept none, for long."""
    started = start(web=({"port": 80}, listens(80)))
    (unit,) = started.watch.context.units.values()
    daemon = replace(unit, mode="daemon", pid_file="/run/web.pid")
    monkeypatch.setattr(started.watch, "context", replace(started.watch.context, units={"web": daemon}))
    knocks: list[float] = []
    clock, files = started.machine.clock, started.machine.files

    def knock(_: object) -> str:
        knocks.append(clock.now())
        return ""

    monkeypatch.setattr(started.machine.network, "connection_problem", knock)
    clock.after(0.5, lambda: files.write("/run/web.pid", f"{driver.pids[unit.name]}\n"))
    started.wait()
    assert 0.5 <= min(knocks) <= 0.5 + LONGEST_PAUSE


def test_what_is_ready_is_not_waited_for(start: Callable[..., Started]) -> None:
    """Servers that listen at once take no time at all."""
    started = start(a=({"port": 80}, listens(80)), b=({"port": 81}, listens(81)))
    started.wait()
    assert (started.machine.clock.now(), started.watch.context.timeline.order("ready")) == (0, ["a", "b"])


def test_without_ports_it_has_to_settle(start: Callable[..., Started]) -> None:
    """Without ports and condition, an instance is ready when it has lived for a moment."""
    started = start(worker=({}, ends(after=60)))
    started.wait()
    assert SETTLE_SECONDS <= started.machine.clock.now() < 2 * SETTLE_SECONDS


@pytest.mark.parametrize("attributes", [{"port": 80}, {"ready": ready.file("/never")}, {}])
@pytest.mark.parametrize(
    ("status", "ending"), [(3, "ended with status 3"), (0, "ended with status 0"), (-11, "was killed by signal 11")]
)
def test_death_ends_the_wait(start: Callable[..., Started], attributes: Any, status: int, ending: str) -> None:
    """An instance that ends is reported at once: how and when it ended, what was waited for, and the log's end."""
    error = start(web=(attributes, ends(status, after=0.05, output="cannot bind\n"))).error()
    assert error.startswith(f"web did not start: it {ending} after 0.0")
    assert f"its manager says: {ending}" in error
    assert "waited for: " in error
    assert error.endswith("end of its log:\ncannot bind")


def test_death_of_a_later_one_ends_the_wait(start: Callable[..., Started]) -> None:
    """An instance that ends is reported even while another one is waited for."""
    started = start(a=({"port": 80}, listens(80, after=20)), b=({"port": 81}, ends(1, after=0.5)))
    assert started.error().startswith("b did not start: it ended with status 1")
    assert started.machine.clock.now() < 1


def test_death_after_being_seen_alive(start: Callable[..., Started]) -> None:
    """An instance that lived for a while and then ended is reported too."""
    started = start(web=({"port": 80}, ends(7, after=3)))
    assert started.error().startswith("web did not start: it ended with status 7 after 3.0")


def test_empty_log_is_said_to_be_empty(start: Callable[..., Started]) -> None:
    """A missing log is told apart from one that is not shown."""
    assert start(web=({"port": 80}, ends(1))).error().endswith("its log is empty")


def test_timeout_says_what_was_seen_last(start: Callable[..., Started]) -> None:
    """At the limit, the error says who is not ready, for how long, what is missing, and what the manager says."""
    started = start(a=({"port": 80}, listens(80)), web=({"port": 81}, each(listens(82))))
    error = started.error(5).splitlines()
    assert error[0] == "web is not ready after 5 s"
    assert error[1] == "last seen: web: port 81: Connection refused"
    assert error[2].startswith("its manager says: runs, pid ")
    assert started.machine.clock.now() == 5


NEVER: dict[str, Any] = {"port": 80, "ready": ready.file("/never")}


def taken(machine: FakeMachine, _: FakeProcess) -> None:
    """Have somebody else listen on the port."""
    machine.network.listen(80, machine.processes.spawn(Spawn(("/bin/nc", "-l", "80"))))


@pytest.mark.parametrize("script", [each(taken, ends(1, after=0.1)), taken])
def test_who_has_taken_the_port_is_named(start: Callable[..., Started], script: Script) -> None:
    """When somebody else has a declared port, the error names who, whether or not the instance has ended over it."""
    error = start(web=(NEVER, script)).error(5)
    assert re.search(r"^TCP port 80: process \d+ holds it \(/bin/nc -l 80\)$", error, re.MULTILINE)


def test_nobody_has_taken_the_port(start: Callable[..., Started], machine: FakeMachine) -> None:
    """Neither the instance's own processes are blamed for its port, nor while it runs one that cannot be seen."""

    def own(_: FakeMachine, process: FakeProcess) -> None:
        machine.network.listen(80, machine.processes.fork(process.pid, Spawn(("/bin/child",))))

    assert "TCP port" not in start(web=(NEVER, own)).error(5)
    assert "TCP port" not in start(web=(NEVER, lambda *_: machine.network.listen(80))).error(5)


def test_unseen_holder(start: Callable[..., Started], machine: FakeMachine) -> None:
    """Once the instance has ended, its port is somebody else's, even if that cannot be seen."""
    machine.network.listen(80)
    assert "TCP port 80: a process of another user holds it\n" in start(web=(NEVER, ends(1, after=0.1))).error()


@pytest.mark.parametrize(("bound", "said"), [("127.0.0.2", {}), ("::1", {}), ("::1", {"bind_address": "localhost"})])
def test_ready_where_it_listens(start: Callable[..., Started], bound: str, said: dict[str, str]) -> None:
    """A server is ready on whichever address it listens, if its model does not say another one."""
    started = start(web=({"port": 80, **said}, listens(80, host=bound)))
    started.wait()
    assert started.machine.clock.now() == 0
    assert "of 127.0.0.3" not in start(db=({"port": 81, "bind_address": "127.0.0.3"}, listens(81))).error(5)


def test_declared_address_is_looked_at_alone(start: Callable[..., Started]) -> None:
    """Who listens on another address than the declared one is not ready."""
    error = start(web=({"port": 80, "bind_address": "127.0.0.2"}, listens(80))).error(5)
    assert "last seen: web: port 80: Connection refused" in error


def test_one_port_on_two_addresses(start: Callable[..., Started]) -> None:
    """Each of two servers is ready by its own answers only."""
    one = ({"port": 80, "bind_address": "127.0.0.1"}, listens(80))
    two = ({"port": 80, "bind_address": "127.0.0.2"}, listens(80, after=2, host="127.0.0.2"))
    started = start(one=one, two=two)
    started.wait()
    events = {event.instance: event.seconds for event in started.watch.context.timeline}
    assert events["one"] == 0
    assert events["two"] >= 2


@pytest.mark.parametrize("condition", [{}, {"ready": ready.tcp(80)}, {"ready": ready.tcp(80, "127.0.0.1")}])
def test_answer_of_somebody_else(start: Callable[..., Started], condition: dict[str, Any]) -> None:
    """Whoever else answers on an instance's port does not make it ready, and is named."""
    started = start(web=({"port": 80, **condition}, taken))
    error = started.error(5)
    assert re.search(
        r"^last seen: web: port 80.*: process \d+ holds it \(/bin/nc -l 80\), which is none of web's$",
        error,
        re.MULTILINE,
    )
    assert started.watch.context.timeline.order("ready") == []


def test_port_that_it_does_not_declare(start: Callable[..., Started]) -> None:
    """A condition about a port that is not the instance's own holds whoever answers there, on any address."""
    for condition in (ready.tcp(80), ready.tcp(80, "127.0.0.1")):
        start(web=({"ready": condition}, taken)).wait()
    start(web=({"ready": ready.tcp(82)}, lambda machine, _: machine.network.listen(82, host="::1"))).wait()


def test_other_part_of_a_condition(start: Callable[..., Started]) -> None:
    """When somebody else answers, another part of the condition, or another address, may still do."""
    said = ends(after=60, output="up\n")
    start(web=({"port": 80, "ready": ready.tcp(80) | ready.log("^up$")}, each(taken, said))).wait()
    start(web=({"port": 80}, each(taken, listens(80, host="127.0.0.2")))).wait()


def test_last_line_of_a_dying_program(start: Callable[..., Started]) -> None:
    """An instance that has ended when its condition comes to hold is not ready: that is an end like any other."""
    error = start(web=({"ready": ready.log("^bye$")}, ends(3, output="bye\n"))).error()
    assert error.startswith("web did not start: it ended with status 3")


def test_end_while_its_manager_is_at_work(start: Callable[..., Started]) -> None:
    """While its manager still starts it, an instance whose condition holds and that does not run is waited for."""
    started = start(web=({"ready": ready.log("^bye$")}, ends(3, output="bye\n")))
    started.watch.add(["web"], started.machine.deadline(5), ["web"])
    assert started.watch.look() == []
    assert started.watch.waits["web"].unmet == "ended with status 3"


def test_progress_is_told_now_and_then(start: Callable[..., Started]) -> None:
    """While it takes long, it is told from time to time how far it is; a quick start is silent."""
    started = start(a=({"port": 80}, listens(80)), web=({"port": 81}, listens(81, after=5)))
    started.wait()
    times = [time for time, _ in started.progress]
    assert times == pytest.approx([PROGRESS_SECONDS, 2 * PROGRESS_SECONDS], abs=2 * LONGEST_PAUSE)
    assert started.progress[0][1] == "1 of 2 instances are ready, waiting for web: port 81: Connection refused"
