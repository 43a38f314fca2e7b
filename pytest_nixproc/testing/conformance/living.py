"""What can be seen and done while a system is up."""

from __future__ import annotations

import signal

import pytest

from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.process_table import HAS_PROC, is_alive, own_pid, stat_fields
from pytest_nixproc.model.process import Mode
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    http_body,
    one,
    own_number,
    received,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, in_both_modes
from pytest_nixproc.testing.programs.models import misbehaving, probe


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped by the kernel (proc(5)), by psutil where there is no ``/proc``."""
    if HAS_PROC:
        return stat_fields(pid)[:1] == ["T"]
    import psutil

    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


class Living(Fixtures):
    """What can be seen and done while a system is up."""

    @in_both_modes
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGUSR2, 3)])
    def test_crash_is_seen(self, bench: Bench, mode: Mode, number: signal.Signals, status: int) -> None:
        """A program that has ended by itself does not run, its status is known, and the teardown is clean."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            it = system["it"]
            it.kill(number)
            bench.await_that(lambda: it.status.has_ended, "the end is seen")
            assert (it.status.exit_status, it.pid, it.pids, it.listening) == (status, None, [], set())
            with pytest.raises(DeploymentError, match="it does not run"):
                system.assert_no_conflicts()

    @in_both_modes
    def test_restart(self, bench: Bench, mode: Mode) -> None:
        """A restarted program is another process, which serves."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            before = system["it"].pid
            system["it"].restart()
            assert system["it"].pid not in (None, before)
            assert http_body(system["it"]) == str(own_number(system["it"]))
            system.assert_no_conflicts()

    @in_both_modes
    def test_reload(self, bench: Bench, mode: Mode) -> None:
        """A reload reaches the program, which goes on."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            before = system["it"].pid
            system["it"].reload()
            bench.await_line(system["it"], "reloaded")
            assert system["it"].pid == before

    @in_both_modes
    def test_log(self, bench: Bench, mode: Mode) -> None:
        """The log has what a program writes to its output and error, in order, at once, once."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            it = system["it"]
            sizes = system.log_sizes()
            for number in (1, 2):
                it.kill(signal.SIGUSR1)
                bench.await_line(it, f"line {number} on request")
            assert system.logs_since(sizes) == {"it": "line 1 on request\nline 2 on request\n"}
            assert it.log == "the probe is up\nline 1 on request\nline 2 on request\n"

    @in_both_modes
    def test_pause(self, bench: Bench, mode: Mode) -> None:
        """A paused program is stopped by the kernel, still counts as running, and goes on afterwards."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            pid = system["it"].pid
            assert pid is not None
            with system["it"].paused():
                bench.await_that(lambda: is_stopped(pid), "it is stopped")
                assert system["it"].is_running
            assert http_body(system["it"]) == str(own_pid(pid))

    @in_both_modes
    def test_processes_and_ports(self, bench: Bench, mode: Mode) -> None:
        """An instance's processes and ports are its own, with the program first."""
        ports = {"one": bench.port(), "two": bench.port()}
        with bench.deploy(
            lambda state: {name: probe(name, state, mode, port=port) for name, port in ports.items()}
        ) as system:
            for name, port in ports.items():
                assert [own_pid(pid) for pid in system[name].pids] == [received(system, name).pid]
                assert system[name].listening == {port}
                assert system.statuses()[name].pid == system[name].pid

    @in_both_modes
    def test_program_that_forks(self, bench: Bench, mode: Mode) -> None:
        """What a program forks belongs to its instance, with the ports that it holds, and is gone after a stop."""
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
        """An upgrade stops what is gone, restarts what has changed, starts what is new, and leaves the rest alone."""
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
