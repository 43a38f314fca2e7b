"""The foreground proxy, as a process of its own in front of real daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_nixproc.deployment.site import TAG
from pytest_nixproc.machines.connection import PACKAGE_ROOT
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import descendants, is_alive, parents
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.managers.proxy import proxy_argv
from pytest_nixproc.testing.programs import models

Start = Callable[..., "Proxied"]

PYTHON = (models.INTERPRETER, *models.OPTIONS)


class Proxied:
    """A proxy, and the daemon behind it."""

    def __init__(self, place: str, machine: Host, argv: tuple[str, ...], environment: dict[str, str]) -> None:
        self.machine = machine
        self.pid_file = f"{place}/pid"
        self.log_file = f"{place}/log"
        words = (*proxy_argv(sys.executable, PACKAGE_ROOT, self.pid_file), *argv)
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                words, env={TAG: place, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=place
            )

    def await_that(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds."""
        wait_until(
            lambda: "" if condition() else self.log() or "no log", self.machine.deadline(10), f"wait until {what}"
        )

    def log(self) -> str:
        """Return what proxy and daemon have written."""
        return Path(self.log_file).read_text()

    def await_line(self, line: str) -> None:
        """Wait until the daemon has written a line."""
        self.await_that(lambda: line in self.log().splitlines(), f"the log has {line!r}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the proxy a signal and return how it ended."""
        self.process.send_signal(number)
        return self.process.wait(5)

    def destroy(self) -> None:
        """End everything, and see that it has ended."""
        left = [pid for pid in (*self.below(), self.process.pid) if is_alive(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.await_that(lambda: not any(map(is_alive, left)), "everything has ended")

    def below(self) -> list[int]:
        """Return all processes below the proxy."""
        return descendants([self.process.pid], parents())


@pytest.fixture
def start(place: str, machine: Host) -> Iterator[Start]:
    """Return a function that starts a program of ours as a daemon behind a proxy; what is left below it is ended."""
    started: list[Proxied] = []

    def start(script: str, *words: str, **environment: str) -> Proxied:
        argv = (*PYTHON, f"{models.HERE}/{script}.py", *words, f"pid_file={place}/pid", "-D")
        environment |= {"PROBE_DUMP": f"{place}/dump", "PROBE_PID_FILE": f"{place}/pid"}
        started.append(Proxied(place, machine, argv, environment))
        return started[-1]

    yield start
    for proxied in started:
        proxied.destroy()


@pytest.fixture
def probe(start: Start, place: str) -> Proxied:
    """Return a proxy in front of a probe that is up."""
    proxied = start("probe")
    proxied.await_that(lambda: os.path.exists(f"{place}/dump"), "the probe is up")
    return proxied


def daemon_of(place: str) -> int:
    """Return the probe's pid, as it knows it."""
    return int(json.loads(Path(f"{place}/dump").read_text())["pid"])


@contextmanager
def stranger() -> Iterator[int]:
    """Run a process that is none of the proxy's; it has to be alive at the end."""
    with subprocess.Popen([*PYTHON, "-c", "import signal; signal.pause()"]) as process:
        try:
            yield process.pid
            assert process.poll() is None, "a process that is none of the proxy's was touched"
        finally:
            process.kill()


def test_term_ends_the_daemon_and_then_the_proxy(probe: Proxied, place: str) -> None:
    """SIGTERM reaches the daemon, and the proxy ends with its status."""
    daemon = daemon_of(place)
    assert probe.end() == 0
    assert not is_alive(daemon)
    assert "ending\n" in probe.log()


def test_other_signals_are_passed_on(probe: Proxied) -> None:
    """SIGHUP and SIGUSR1 reach the daemon, each once, and the proxy goes on."""
    for number, line in (
        (signal.SIGHUP, "reloaded"),
        (signal.SIGUSR1, "line 1 on request"),
        (signal.SIGUSR1, "line 2 on request"),
    ):
        probe.process.send_signal(number)
        probe.await_line(line)
    assert probe.process.poll() is None
    assert probe.log().splitlines() == ["the probe is up", "reloaded", "line 1 on request", "line 2 on request"]


def test_status_of_the_daemon_is_the_proxys(probe: Proxied) -> None:
    """The proxy ends with the daemon's exit status."""
    assert probe.end(signal.SIGUSR2) == 3


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name
)
def test_signal_that_ended_the_daemon_ends_the_proxy(start: Start, place: str, number: signal.Signals) -> None:
    """When a signal has killed the daemon, the same one kills the proxy; and no core is left behind."""
    proxied = start("misbehaving", "dies", f"signal={number:d}")
    assert proxied.process.wait(5) == -number
    assert sorted(os.listdir(place)) == ["log", "pid"]


def test_end_is_noticed_without_a_signal_to_the_proxy(probe: Proxied, place: str) -> None:
    """A daemon that somebody else kills ends the proxy, the same way."""
    os.kill(daemon_of(place), signal.SIGKILL)
    assert probe.process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["of the dead", "of a stranger", "no number", "empty"])
def test_stale_pid_file_is_not_believed(start: Start, place: str, kind: str) -> None:
    """What is in the PID file before the daemon writes it is nothing to the proxy."""
    dead = subprocess.Popen(["/bin/sh", "-c", ":"])
    dead.wait()
    with stranger() as pid:
        contents = {"of the dead": f"{dead.pid}\n", "of a stranger": f"{pid}\n", "no number": "none\n"}
        Path(f"{place}/pid").write_text(contents.get(kind, ""))
        proxied = start("probe")
        proxied.await_that(lambda: os.path.exists(f"{place}/dump"), "the probe is up")
        proxied.process.send_signal(signal.SIGUSR1)
        proxied.await_line("line 1 on request")
        daemon = daemon_of(place)
        assert proxied.end() == 0
        assert not is_alive(daemon)


def test_late_pid_file(start: Start) -> None:
    """A daemon may write its PID file after its starter has ended."""
    proxied = start("misbehaving", "late-pid-file", "delay=0.3")
    proxied.await_that(lambda: os.path.exists(proxied.pid_file), "the PID file is there")
    assert proxied.end() == 0


@pytest.mark.parametrize("behaviour", ["no-pid-file", "wrong-pid-file", "late-pid-file"])
def test_stop_before_the_pid_file(start: Start, behaviour: str) -> None:
    """A proxy that is told to end while it still waits for a PID file ends soon, and takes the daemon with it."""
    proxied = start("misbehaving", behaviour, "delay=60", "ready=1")
    proxied.await_line("ready")
    below = proxied.below()
    assert below
    assert proxied.end() != 0
    assert not any(map(is_alive, below))
    assert proxied.pid_file in proxied.log()


@pytest.mark.parametrize(("ending", "status"), [("status=9", 9), ("signal=11", -11)])
def test_starter_that_fails(start: Start, ending: str, status: int) -> None:
    """When the command that makes the daemon fails, the proxy ends the same way, at once."""
    proxied = start("misbehaving", "dies", ending, "early=1")
    assert proxied.process.wait(5) == status
    assert proxied.log() == "the disk is on fire\n"


@pytest.mark.parametrize("tidy", [True, False])
def test_daemon_that_dies_at_once(start: Start, tidy: bool) -> None:  # noqa: FBT001 - a parameter
    """The status of a daemon that dies as soon as it is there arrives, with its PID file removed or not."""
    proxied = start("misbehaving", "dies", "status=7", *([] if tidy else ["keeps_pid_file=1"]))
    assert proxied.process.wait(5) == 7


def test_program_that_is_not_there(place: str, machine: Host) -> None:
    """A program that does not exist ends the proxy with its path in the message."""
    proxied = Proxied(place, machine, (f"{place}/nowhere",), {})
    assert proxied.process.wait(5) == 1
    assert f"{place}/nowhere: No such file" in proxied.log()


def test_real_end_is_waited_for(start: Start) -> None:
    """After SIGTERM the proxy stays until the daemon has really ended, however long that takes."""
    proxied = start("misbehaving", "ends-slowly", "delay=0.4", "ready=1")
    proxied.await_line("ready")
    proxied.await_that(lambda: os.path.exists(proxied.pid_file), "the PID file is there")
    assert proxied.end() == 0
    assert proxied.log().endswith("ended after a while\n")
