"""The private supervisord of a deployment: who can reach it, what it reads, and how it fails."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import DeploymentError, NixprocError, StartError, TeardownError
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import environment_of, is_alive
from pytest_nixproc.managers.supervisord import SupervisordDriver
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.conformance import Bench, http_body, load, one, received, seconds_of
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.tags import DEPLOYMENT
from tests.interrupts import Interrupt, interrupted_everywhere


@pytest.fixture
def bench(machine: Host) -> Iterator[Bench]:
    """Return a bench that deploys with supervisord."""
    manager = Registry().manager("supervisord")
    if reason := manager.unavailable_reason(Host):
        pytest.skip(reason)
    bench = Bench(manager, machine)
    yield bench
    assert not bench.leftovers()


def daemon_of(system: System) -> int:
    """Return the pid of a deployment's supervisord."""
    (pid,) = (
        pid
        for pid in system.machine.processes.strays(f"{DEPLOYMENT}={system.root}")
        if "supervisor.supervisord" in system.machine.processes.describe(pid)
    )
    return pid


def test_socket_is_for_its_owner_alone(bench: Bench) -> None:
    """The control socket has mode 0700, whoever can come as far as it."""
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        status = os.stat(f"{system.state.runtime_dir}/supervisord.sock")
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == os.getuid()


def test_no_tcp_port(bench: Bench) -> None:
    """The supervisord of a deployment listens on no TCP port."""
    with bench.deploy(one(lambda state: probe("it", state, port=bench.port()))) as system:
        pid = daemon_of(system)
        listening = {listener.pid for listener in system.machine.network.listeners()}
        assert system["it"].pid in listening
        assert pid not in listening


def test_only_its_own_configuration_and_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration in the caller's directory is not read, and the caller's environment is not passed on."""
    Path(f"{bench.scratch}/supervisord.conf").write_text("[supervisord\nthis is broken")
    Path(f"{bench.scratch}/supervisor.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(bench.scratch)
    monkeypatch.setenv("SUPERVISOR_CALLERS_OWN", "1")
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        pid = daemon_of(system)
        assert system.machine.processes.describe(pid).endswith(f" -c {system.root}/profile/etc/supervisord.conf")
        names = {entry.partition(b"=")[0] for entry in environment_of(pid).split(b"\0") if entry}
        assert names == {b"PATH", DEPLOYMENT.encode()}


def test_nothing_is_written_outside_the_deployment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the caller's directory nor the temporary one gets a log, a PID file or a socket."""
    monkeypatch.chdir(bench.scratch)
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        opened = {os.path.realpath(link) for link in Path(f"/proc/{daemon_of(system)}/fd").iterdir()}
        files = {path for path in opened if path.startswith("/") and os.path.isfile(path)}
        assert {path for path in files if not path.startswith(f"{system.root}/")} == set()
        assert os.listdir(bench.scratch) == []


def test_dead_supervisord_is_named(bench: Bench) -> None:
    """When supervisord is killed, every request says so, and the teardown ends what it has left behind."""
    with bench.deploy(one(lambda state: probe("it", state, port=bench.port()))) as system:
        it, daemon = system["it"], daemon_of(system)
        program = it.pid
        assert program is not None
        os.kill(daemon, signal.SIGKILL)
        bench.await_that(lambda: not is_alive(daemon), "supervisord is dead")
        assert "supervisord does not answer" in it.status.text
        for request in (it.start, it.reload, it.restart):
            with pytest.raises(NixprocError, match="supervisord does not answer"):
                request()
        with pytest.raises(TeardownError, match=r"supervisord does not answer[\s\S]*it was given \d\.\d of its"):
            system.stop()
        assert not is_alive(program)


def test_kill_by_supervisord_is_reported(bench: Bench) -> None:
    """Where overrides have supervisord kill before an instance's time is over, that is told, with when it was."""
    port, overrides = bench.port(), {"supervisord": {"stopwaitsecs": 1}}
    build = one(lambda state: misbehaving("it", state, "foreground", "ignores-term", port=port, overrides=overrides))
    told = r"it was given \d\.\d of its 10 s to stop: process \d+ was killed by its manager"
    with bench.deploy(build) as system, pytest.raises(TeardownError, match=told):
        system["it"].stop()


def test_supervisord_is_not_asked_again_about_what_runs(bench: Bench) -> None:
    """What supervisord has said once holds while the process runs, even if supervisord cannot answer, and no longer."""
    with bench.deploy(one(lambda state: probe("it", state, port=bench.port()))) as system:
        it, daemon = system["it"], daemon_of(system)
        os.kill(daemon, signal.SIGSTOP)
        try:
            assert it.is_running
        finally:
            os.kill(daemon, signal.SIGCONT)
        it.kill()
        assert not system.statuses()["it"].running
        it.start()
        assert system.statuses()["it"].running


def test_supervisord_that_cannot_start(bench: Bench) -> None:
    """When supervisord ends at its start, the error has its own words."""

    def spoil(parameters: dict[str, object]) -> dict[str, object]:
        return parameters | {"stdout_logfile": "/nowhere/it.log"}

    overrides = {"supervisord": spoil}
    build = one(lambda _: Instance(create_managed_process(name="it", process="/bin/true", overrides=overrides)))
    with (
        pytest.raises(DeploymentError, match=r"supervisord ended at its start\n.*/nowhere/it\.log"),
        bench.deploy(build),
    ):
        pass


def test_ready_program_is_not_held_back(bench: Bench) -> None:
    """A program that listens at once is ready long before a second, supervisord's usual ``startsecs``, has passed."""
    with bench.deploy(one(lambda state: probe("it", state, port=bench.port()))) as system:
        assert seconds_of(system, "ready", "it") - seconds_of(system, "start", "it") < 0.7


def test_stop_is_noticed_at_once(bench: Bench) -> None:
    """The end of a level is seen when it comes, not when supervisord looks for it the next time, once a second."""

    def build(state: StateDirs) -> dict[str, Instance]:
        return {
            name: probe(name, state, port=port, dependencies=list(ports)[:number])
            for number, (name, port) in enumerate(ports.items())
        }

    ports = {f"p{number}": bench.port() for number in range(4)}
    with bench.deploy(build) as system:
        pass
    assert seconds_of(system, "stopped", "p0") - seconds_of(system, "stop", "p3") < 1


def test_faults_are_told_at_once(bench: Bench) -> None:
    """A command of an override that is not there fails the deployment by name and path; supervisord retries nothing."""
    path = "/nowhere/at all"
    overrides = {"supervisord": {"command": f'"{path}"'}}
    system = System(bench.planner())
    with pytest.raises(StartError, match=path):
        system.start(load(one(lambda state: probe("it", state, overrides=overrides))))
    assert seconds_of(system, "stop", "it") - seconds_of(system, "start", "it") < 0.7


def test_override_reaches_the_section(bench: Bench) -> None:
    """An override that asks for restarts makes supervisord restart a program that was killed."""
    overrides = {"supervisord": {"autorestart": "true"}}
    port = bench.port()
    with bench.deploy(one(lambda state: probe("it", state, port=port, overrides=overrides))) as system:
        before = system["it"].pid
        system["it"].kill(signal.SIGKILL)
        bench.await_that(lambda: system["it"].pid not in (None, before), "it is restarted")
        system["it"].wait_ready()
        assert http_body(system["it"]) == str(system["it"].pid)


@pytest.mark.parametrize("initialize", ["", "true"], ids=["section", "script"])
def test_variables_of_an_override(bench: Bench, initialize: str) -> None:
    """Variables that an override maps are merged with the process's, whoever sets them."""
    told: dict[str, Any] = {"environment": {"A": "1", "C": "4"}, "initialize": initialize}
    overrides = {"supervisord": {"environment": {"A": "2", "B": "3"}}}
    with bench.deploy(one(lambda state: probe("it", state, **told, overrides=overrides))) as system:
        found = received(system, "it").environment
    assert {name: found[name] for name in (b"A", b"B", b"C")} == {b"A": b"2", b"B": b"3", b"C": b"4"}


def test_two_at_once_do_not_meet(bench: Bench) -> None:
    """Two deployments have two supervisords, and each stops its own."""
    build = one(lambda state: probe("it", state))
    with bench.deploy(build) as first:
        with bench.deploy(build) as second:
            daemons = daemon_of(first), daemon_of(second)
            assert daemons[0] != daemons[1]
        assert [is_alive(daemon) for daemon in daemons] == [True, False]


def test_exception_at_any_bytecode_of_a_request_leaves_the_next_one_sound(bench: Bench) -> None:
    """Wherever an exception strikes in a request to supervisord, the next one gets its own answer."""
    with bench.deploy(one(lambda state: probe("it", state, port=bench.port()))) as system:
        driver = system._deployment.operation.driver  # noqa: SLF001 - the requests alone are quick enough for this
        units = list(system._deployment.operation.context.units.values())  # noqa: SLF001
        pid, rounds = system["it"].pid, 0
        assert isinstance(driver, SupervisordDriver)

        def ask() -> None:
            driver._interface.known.clear()  # noqa: SLF001
            driver.status(units)

        for _ in interrupted_everywhere(ask, 13):
            rounds += 1
            driver._interface.known.clear()  # noqa: SLF001
            assert driver.status(units)["it"].pid == pid
            assert driver._interface.ask_all("signalProcess", units, "0") == {}  # noqa: SLF001
        assert rounds > 5


def test_stop_that_is_interrupted_comes_to_its_end(bench: Bench) -> None:
    """The next verb waits for it, and nobody takes the end for one that nobody has asked for."""

    def ring(*_: object) -> None:
        raise Interrupt("the test has taken too long")

    with bench.deploy(one(lambda state: probe("it", state, port=bench.port()))) as system:
        boss = daemon_of(system)
        before = signal.signal(signal.SIGALRM, ring)
        os.kill(boss, signal.SIGSTOP)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Interrupt, match="taken too long"):
                system["it"].restart()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            os.kill(boss, signal.SIGCONT)
        system["it"].stop()
        assert not system["it"].is_running
        assert system.check_ends() == []
        system["it"].start()
        assert system["it"].listening == {system["it"].port}
