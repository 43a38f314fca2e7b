"""The guardian and the connection to it: nothing that lives is overlooked, and any thread may ask."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import is_alive
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.values.commands import Spawn
from tests.interrupts import Interrupt, interrupted_everywhere

LIMIT = 60
TAG = "NIXPROC_DEPLOYMENT=/tests/guardian"

MOVE = """
import os, sys, time
while os.path.exists(sys.argv[1]):
    time.sleep(0.05)
    if os.fork():
        os._exit(0)
"""
"""A process that goes on as its own child again and again, as a daemon does twice when it is started."""


CRASH = """
import os, socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.recv(1)
os._exit(70)
"""


@pytest.fixture
def host() -> Iterator[Host]:
    """Return this machine, with a guardian of its own."""
    host = Host()
    yield host
    host.lifecycle.close()


def test_process_that_moves_is_seen_in_every_look(host: Host, tmp_path: Path) -> None:
    """A process whose parent ends while all processes are looked at is not taken for dead."""
    goes_on = tmp_path / "goes-on"
    goes_on.touch()
    name, _, value = TAG.partition("=")
    command = Spawn((sys.executable, "-I", "-S", "-c", MOVE, str(goes_on)), {name: value})
    for _ in range(2):
        host.processes.spawn(command)
    # Until an exec is over, a process shows no environment.
    wait_until(lambda: "" if len(host.processes.strays(TAG)) == 2 else "not there", host.deadline(10), "see both")
    looks = [len(host.processes.strays(TAG)) for _ in range(80)]
    goes_on.unlink()
    assert min(looks) >= 2, looks


def test_end_is_known_to_who_has_lost_a_connection(host: Host) -> None:
    """A process whose client sees it go is seen to end at once, though its end may not be reported yet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        argv = (sys.executable, "-I", "-S", "-c", CRASH, str(server.getsockname()[1]))
        for _ in range(30):
            pid = host.processes.spawn(Spawn(argv))
            with server.accept()[0] as client:
                assert not host.processes.ending([pid])
                client.sendall(b"x")
                assert client.recv(1) == b""
                assert host.processes.ending([pid]) == {pid}


def test_end_of_an_earlier_process_with_the_pid_is_not_taken_for_its_own(host: Host) -> None:
    """What the guardian has reported of a pid says nothing about a process that has got it since from somebody else."""
    killed = host.processes.spawn(Spawn(("/bin/sleep", "60")))
    host.processes.signal(killed, signal.SIGKILL)
    assert not host.processes.wait_ended([killed], host.deadline(10))
    wait_until(lambda: "" if host.processes.exit_status(killed) == -9 else "not seen", host.deadline(10), "see the end")
    with reused(killed) as process:
        assert host.processes.ended([killed]) == set()
        process.terminate()
        process.wait()
        assert host.processes.ended([killed]) == {killed}
        assert host.processes.exit_status(killed) is None


@contextmanager
def reused(pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with a pid that was another's, as the kernel gives it out once all numbers have had their turn."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last, os.W_OK):
        pytest.skip(f"the next pid cannot be chosen: {last} cannot be written (proc(5))")
    for _ in range(100):
        last.write_text(f"{pid - 1}")
        process = subprocess.Popen(["/bin/sleep", "60"])
        if process.pid == pid:
            yield process
            return
        process.kill()
        process.wait()
    pytest.fail(f"others were always quicker to get pid {pid}")


def guardian_of(host: Host) -> int | None:
    """Return the guardian of a host: that with which a deployment would be registered."""
    pid = host.lifecycle.guard("/nonexistent", ["/bin/true"])
    host.lifecycle.unguard("/nonexistent")
    return pid


def test_exception_at_any_bytecode_of_a_request_leaves_the_next_one_sound(host: Host) -> None:
    """Wherever an exception strikes in a verb, the next one gets its own answer, and so does another thread."""
    other: list[str] = []
    rounds = 0
    for _ in interrupted_everywhere(lambda: host.succeed("echo interrupted"), 11):
        rounds += 1
        thread = Thread(target=lambda: other.append(host.succeed("echo other")))
        thread.start()
        assert host.succeed("echo next") == "next\n"
        thread.join(LIMIT)
    assert rounds > 5
    assert other == ["other\n"] * rounds


def test_exception_of_an_alarm_is_raised_as_it_is(host: Host) -> None:
    """A handler's TimeoutError is no error of the system: a poll does not swallow it, and the guardian has not gone."""

    def poll() -> None:
        while True:
            host.network.connection_problem("/nonexistent")
            host.processes.sync_exits()

    def ring(*_: object) -> None:
        raise Interrupt("the test has taken too long")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for number in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.01 + number * 0.001)
            with pytest.raises(Interrupt, match="taken too long"):
                poll()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert host.succeed("echo next") == "next\n"


def test_forked_child_has_a_guardian_of_its_own(host: Host) -> None:
    """A child neither reads its parent's answers nor ends its parent's processes: it has its own guardian."""
    server = host.processes.spawn(Spawn((sys.executable, "-S", "-c", "import signal; signal.pause()"), {}))
    parents = guardian_of(host)
    child = os.fork()
    if child == 0:
        try:
            is_own = host.succeed("echo child") == "child\n" and guardian_of(host) != parents
            host.lifecycle.close()
            os._exit(0 if is_own else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_alive(server)
    assert host.succeed("echo parent") == "parent\n"
