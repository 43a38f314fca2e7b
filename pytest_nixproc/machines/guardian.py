"""The guardian: a small process that starts everything for us, adopts what is orphaned, and outlives us.

It holds one end of a socket pair, as its standard input; the test process holds the other. When that closes, however
the test process ended, the guardian ends all processes below it. Run on its own, without site-packages, by
:mod:`pytest_nixproc.machines.host`; it imports only what a bare interpreter has, to be small and quick to start.

Messages are lines of JSON. Requests: ``{"spawn": ID, "argv": [], "environment": {}, "output": PATH}``,
``{"strays": ID, "tag": TEXT}``, ``{"release": true}`` (let the processes live on). Replies: ``{"ready": PID}``,
``{"spawned": ID, "pid": N}``, ``{"failed": ID, "error": TEXT}``, ``{"exited": PID, "status": N}``,
``{"strays": ID, "pids": []}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Final

from pytest_nixproc.machines.process_table import descendants, environment_of, parents
from pytest_nixproc.machines.subreaper import become_subreaper

GRACE_SECONDS: Final = 5.0
IGNORED: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTERM, signal.SIGPIPE)
PYTHON_IGNORES: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class Guardian:
    """The loop of the guardian process."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.released = False
        self.wakeup, child_ended = os.pipe()
        os.set_blocking(child_ended, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(child_ended, warn_on_full_buffer=False)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def serve(self) -> None:
        """Answer requests and report ends until the test process is gone; then end what is left."""
        self.send(ready=os.getpid(), adopts=become_subreaper())
        pending = b""
        while True:
            readable = select.select([self.connection.fileno(), self.wakeup], [], [])[0]
            if self.wakeup in readable:
                os.read(self.wakeup, 4096)
                self.reap()
            if self.connection.fileno() in readable:
                received = self.receive()
                if not received:
                    break
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    self.answer(json.loads(line))
        self.linger() if self.released else self.end_all()

    def receive(self) -> bytes:
        """Read what the test process sent; empty when it is gone."""
        try:
            return self.connection.recv(1 << 20)
        except ConnectionError:
            return b""

    def send(self, **message: Any) -> None:
        """Write one message; a test process that is gone is noticed by the next read."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def answer(self, request: dict[str, Any]) -> None:
        """Carry out one request."""
        if "spawn" in request:
            self.spawn(request)
        elif "strays" in request:
            self.send(strays=request["strays"], pids=self.strays(request["tag"].encode()))
        elif "release" in request:
            self.released = True

    def strays(self, tag: bytes) -> list[int]:
        """Return the processes below this one that carry a tag; all are, however they were orphaned."""
        below = descendants([os.getpid()], parents()) if self.reap() else []
        return [pid for pid in below if tag in environment_of(pid).split(b"\0")]

    def spawn(self, request: dict[str, Any]) -> None:
        """Start a process in a session of its own, with default signals; output is appended to a file."""
        output = request["output"] or os.devnull
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        argv = request["argv"]
        try:
            pid = os.posix_spawn(
                argv[0],
                argv,
                request["environment"],
                file_actions=actions,
                setsid=True,
                setsigdef=[*IGNORED, *PYTHON_IGNORES],
            )
        except OSError as error:
            self.send(failed=request["spawn"], error=f"{error.strerror}: {argv[0]}")
        else:
            self.send(spawned=request["spawn"], pid=pid)

    def reap(self) -> bool:
        """Report every child that has ended; return whether there are children left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            self.send(exited=pid, status=os.waitstatus_to_exitcode(status))

    def end_all(self) -> None:
        """End every process below this one: SIGTERM, and SIGKILL once the time of grace is over, until none is left."""
        end_of_grace = time.monotonic() + GRACE_SECONDS
        self.signal_all(signal.SIGTERM)
        while self.reap():
            if time.monotonic() > end_of_grace:
                self.signal_all(signal.SIGKILL)
            select.select([self.wakeup], [], [], 0.05)

    def signal_all(self, number: int) -> None:
        """Send a signal to every process below this one."""
        for pid in descendants([os.getpid()], parents()):
            try:
                os.kill(pid, number)
            except OSError:
                continue

    def linger(self) -> None:
        """Stay, as the parent of processes that are to live on, until the last one has ended."""
        while self.reap():
            select.select([self.wakeup], [], [])
            os.read(self.wakeup, 4096)


def main() -> None:
    """Serve on standard input."""
    os.umask(0o022)
    Guardian(socket.socket(fileno=os.dup(sys.stdin.fileno()))).serve()
