"""Tests of a running system: crashes, restarts, reloads, logs, processes, ports and upgrades."""

from __future__ import annotations

import signal

import pytest

from pytest_nixproc._system.instance import RunningInstance
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.process_table import HAS_PROC, is_alive, own_pid, stat_fields
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    http_body,
    one,
    own_number,
    pids_of,
    received,
    side_by_side,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, in_both_modes, in_both_modes_at_once
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Mode


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped by a signal, from ``/proc`` (proc(5)), or from psutil where there is none."""
    if HAS_PROC:
        return stat_fields(pid)[:1] == ["T"]
    import psutil

    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def assert_end_is_seen(bench: Bench, it: RunningInstance, number: signal.Signals, status: int) -> None:
    """End a program by a signal, and wait for that; assert that ``status`` is its status, and nothing is left."""
    it.kill(number)
    bench.await_that(lambda: it.status.has_ended, "the end is seen")
    assert (it.status.exit_status, it.pid, it.pids, it.listening) == (status, None, [], set())


class Living(Fixtures):
    """Tests of a running system: crashes, restarts, reloads, logs, processes, ports and upgrades."""

    @in_both_modes
    def test_crash_is_seen(self, bench: Bench, mode: Mode) -> None:
        """A program that has ended by itself does not run, its status is known, and the teardown is clean."""
        ends = {"killed": (signal.SIGKILL, -9), "gone": (signal.SIGUSR2, 3)}
        with bench.deploy(lambda state: {name: probe(name, state, mode, port=bench.port()) for name in ends}) as system:
            for name, (number, status) in ends.items():
                assert_end_is_seen(bench, system[name], number, status)
                with pytest.raises(DeploymentError, match=f"{name} does not run"):
                    system.assert_no_conflicts()

    @in_both_modes_at_once
    def test_restart(self, system: System) -> None:
        """A restarted program is another process, which serves."""
        it = system["restarted"]
        before = it.pid
        it.restart()
        assert it.pid not in (None, before)
        assert http_body(it) == str(own_number(it))
        system.assert_no_conflicts()

    def test_threads(self, bench: Bench) -> None:
        """Several threads may use a system at once: each verb does its work, and none waits for ever."""

        def restart(name: str) -> None:
            for _ in range(2):
                system[name].restart()

        def look() -> None:
            for _ in range(20):
                assert set(system.statuses()) == {"one", "two"}
                assert system.machine.succeed("echo here") == "here\n"

        with bench.deploy(lambda state: {name: probe(name, state) for name in ("one", "two")}) as system:
            before = {instance.pid for instance in system.values()}
            side_by_side(lambda: restart("one"), lambda: restart("two"), look)
            assert all(instance.is_running for instance in system.values())
            assert not before & {instance.pid for instance in system.values()}

    @in_both_modes_at_once
    def test_reload(self, bench: Bench, system: System) -> None:
        """A reload reaches the program, which goes on."""
        it = system["reloaded"]
        before = pids_of(system)
        it.reload()
        bench.await_line(it, "reloaded")
        assert pids_of(system) == before

    @in_both_modes_at_once
    def test_log(self, bench: Bench, system: System) -> None:
        """The log has a program's standard output and standard error, in order, without delay, and only once."""
        it = system["logged"]
        sizes = system.log_sizes()
        for number in (1, 2):
            it.kill(signal.SIGUSR1)
            bench.await_line(it, f"line {number} on request")
        since = {name: text for name, text in system.logs_since(sizes).items() if text}
        assert since == {"logged": "line 1 on request\nline 2 on request\n"}
        assert it.log == "the probe is up\nline 1 on request\nline 2 on request\n"

    @in_both_modes_at_once
    def test_pause(self, bench: Bench, system: System) -> None:
        """A paused program is stopped by the kernel, still counts as running, and goes on afterwards."""
        it = system["paused"]
        pid = it.pid
        assert pid is not None
        with it.paused():
            bench.await_that(lambda: is_stopped(pid), "it is stopped")
            assert it.is_running
        assert http_body(it) == str(own_pid(pid))

    @in_both_modes_at_once
    def test_processes_and_ports(self, system: System) -> None:
        """An instance's processes and ports are its own, with the program first."""
        statuses = system.statuses()
        for name in ("seen", "started"):
            assert [own_pid(pid) for pid in system[name].pids] == [received(system, name).pid]
            assert system[name].listening == {system[name].port}
            assert statuses[name].pid == system[name].pid

    @in_both_modes
    def test_program_that_forks(self, bench: Bench, mode: Mode) -> None:
        """Processes that a program forks belong to its instance, with their ports, and are gone after a stop."""
        port = bench.port()
        with bench.deploy(one(lambda state: misbehaving("it", state, mode, "forks", port=port))) as system:
            it = system["it"]
            program, worker = it.pids
            assert program == it.pid
            assert it.listening == {port}
            assert http_body(it) == str(own_pid(worker))
            it.stop()
            assert not is_alive(worker)

    @in_both_modes
    def test_switch(self, bench: Bench, mode: Mode) -> None:
        """An upgrade stops removed instances, restarts changed ones, starts new ones, and leaves the rest alone."""
        ports = {name: bench.port() for name in ("same", "changed", "gone", "new")}

        def build(state: StateDirs, *names: str, **arguments: str) -> ProcessesModel:
            return ProcessesModel(
                {
                    name: probe(name, state, mode, *filter(None, [arguments.get(name)]), port=ports[name])
                    for name in names
                }
            )

        with bench.deploy(lambda state: build(state, "same", "changed", "gone")) as system:
            before = {name: system[name].pid for name in system}
            system.switch(build(system.state, "same", "changed", "new", changed="with an argument"))
            assert system["same"].pid == before["same"]
            assert system["changed"].pid not in (None, before["changed"])
            assert b"with an argument" in received(system, "changed").arguments
            assert http_body(system["new"]) == str(own_number(system["new"]))
            system.machine.wait_for_closed_port(ports["gone"], timeout=5)
