"""Tests of the web application by itself: what process managers can rely on, in the foreground and as a daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import requests
from constructors import WEBAPP
from free_ports import free_port_block

COMMAND = (sys.executable, "-I", "-S", str(WEBAPP))
SECONDS = 10


def run(*arguments: str, **environment: object) -> tuple[int, str]:
    """Run the webapp until its command ends; return exit status and what it says about errors."""
    variables = {name: str(value) for name, value in environment.items()}
    ended = subprocess.run(
        [*COMMAND, *arguments], env=variables, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return ended.returncode, ended.stderr


@contextmanager
def in_foreground(port: int) -> Iterator[subprocess.Popen[str]]:
    """Run the webapp in the foreground, from the moment it listens."""
    with subprocess.Popen(COMMAND, env={"PORT": str(port)}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"listening on port {port}\n"
            yield process
        finally:
            process.kill()


def connected(port: int) -> socket.socket:
    """Return a connection to the webapp."""
    return socket.create_connection(("127.0.0.1", port), SECONDS)


@pytest.fixture
def port() -> int:
    """Return a free port."""
    free: int = free_port_block(1)
    return free


@pytest.fixture
def pid_file(tmp_path: Path) -> Iterator[Path]:
    """Return where a daemon writes its PID; afterwards end every daemon that was told so, whether it did or not."""
    path = tmp_path / "webapp.pid"
    yield path
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("PID_FILE") == str(path):
            process.kill()


def test_page(port: int) -> None:
    """The page contains the port."""
    with in_foreground(port):
        assert f"served on port {port}." in requests.get(f"http://127.0.0.1:{port}", timeout=SECONDS).text


def test_sigterm(port: int) -> None:
    """SIGTERM ends the program with status 0, even while a client is connected that asks for nothing."""
    with in_foreground(port) as process, connected(port):
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_daemon(port: int, pid_file: Path) -> None:
    """When the command ends, the daemon answers, leads no session and has no terminal; it removes its PID file."""
    assert run("-D", PORT=port, PID_FILE=pid_file) == (0, "")
    daemon = psutil.Process(int(pid_file.read_text()))
    assert f"port {port}." in requests.get(f"http://127.0.0.1:{port}", timeout=SECONDS).text
    assert daemon.terminal() is None
    assert os.getsid(daemon.pid) not in (daemon.pid, os.getsid(0))
    with connected(port) as client:
        daemon.terminate()
        # Its end closes the connection; psutil would wait for the machine's init to take notice of it.
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert not pid_file.exists()


def test_left_pid_file(port: int, pid_file: Path) -> None:
    """A PID file that exists makes the start fail, and is left as it is."""
    pid_file.write_text("1\n")
    status, problem = run("-D", PORT=port, PID_FILE=pid_file)
    assert (status, problem) == (1, f"webapp: cannot make PID file {pid_file}: File exists\n")
    assert pid_file.read_text() == "1\n"


def test_held_port(port: int, pid_file: Path) -> None:
    """A port that somebody holds makes the start of a daemon fail in the process that the caller waits for."""
    with in_foreground(port):
        status, problem = run("-D", PORT=port, PID_FILE=pid_file)
    assert (status, problem) == (1, f"webapp: cannot listen on port {port}: Address already in use\n")
    assert not pid_file.exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "problem"),
    [
        ((), {}, 1, "webapp: the environment variable PORT is not set\n"),
        (("-D",), {"PORT": "5000"}, 1, "webapp: the environment variable PID_FILE is not set\n"),
        ((), {"PORT": "http"}, 1, "webapp: PORT=http is no TCP port\n"),
        ((), {"PORT": "65536"}, 1, "webapp: PORT=65536 is no TCP port\n"),
        (("-d",), {"PORT": "5000"}, 2, "usage: webapp.py [-D]\n"),
    ],
)
def test_wrong_call(arguments: tuple[str, ...], environment: dict[str, str], status: int, problem: str) -> None:
    """A wrong call is refused with its reason."""
    assert run(*arguments, **environment) == (status, problem)
