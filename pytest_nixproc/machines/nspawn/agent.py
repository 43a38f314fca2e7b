"""The agent: a process on a throwaway machine that carries out requests of the test process, as seen from there.

It is a unit of the machine, and connects to a socket in a directory that the machine shares with the test process. It
does there the same as :class:`~pytest_nixproc.machines.host.Host` does on the machine of the tests. Messages are
pickled (both ends are this package): ``(NUMBER, VERB, ARGUMENTS)``, and back ``(NUMBER, RESULT, ERROR)``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from operator import attrgetter
from threading import RLock
from typing import Any, Final

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.guardian.connection import TURN_SECONDS
from pytest_nixproc.machines.host import Host
from pytest_nixproc.values.commands import Spawn

BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pytest_nixproc.machines.nspawn.agent import main; main()"
)

FORWARDER: Final = "/lib/systemd/systemd-socket-proxyd"
FORWARD: Final = 'exec 3<&0 < /dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$1"'
"""Hands the socket on standard input over as systemd would (sd_listen_fds(3))."""

INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)


class Agent:
    """The agent's end of the connection, on the machine."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.host = Host()
        self.own_verbs: dict[str, Callable[..., Any]] = {
            "processes.run": self.run,
            "processes.capture": self.capture,
            "processes.strays": self.strays,
            "forward": self.forward,
            "end_forward": self.end_forward,
        }
        self.forwarders: dict[tuple[int, str], subprocess.Popen[bytes]] = {}
        self.is_busy = False
        signal.signal(signal.SIGINT, self.interrupt)

    def interrupt(self, *_: object) -> None:
        """Give up the current request: the test process does not wait for it any more."""
        if self.is_busy:
            raise InterruptedError("given up")

    def serve(self) -> None:
        """Answer requests until the test process is gone; then end all processes, unless they were released."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                number, verb, arguments = self.connection.recv()
                self.connection.send((number, *self.answer(verb, arguments)))
        self.host.lifecycle.close()

    def answer(self, verb: str, arguments: Sequence[Any]) -> tuple[Any, Exception | None]:
        """Execute one request: a method of the agent itself, or else of the part of the host that the request names."""
        try:
            self.is_busy = True
            carry_out = self.own_verbs.get(verb) or attrgetter(verb)(self.host)
            return carry_out(*arguments), None
        except (NixprocError, OSError) as error:
            return None, error
        finally:
            self.is_busy = False

    def run(self, commands: Sequence[Spawn], seconds: float) -> list[int | None]:
        """Run commands within a number of seconds: a deadline is tied to the clock of the process that set it."""
        return self.host.processes.run(commands, self.host.deadline(seconds))

    def capture(self, command: Spawn, seconds: float) -> tuple[int | None, str]:
        """Run one command within a number of seconds."""
        return self.host.processes.capture(command, self.host.deadline(seconds))

    def strays(self, tag: str) -> list[int]:
        """Return the processes that are left of a deployment, started by us or by the machine's own service manager."""
        processes = self.host.processes
        return list(dict.fromkeys([*processes.strays(tag), *processes.tagged(tag)]))

    def forward(self, port: int, host: str) -> None:
        """Forward connections from a listening socket, received after the request, to a port of this machine."""
        listener = socket.socket(fileno=recv_handle(self.connection))
        with listener:
            argv = ["/bin/sh", "-c", FORWARD, FORWARDER, f"{host}:{port}"]
            self.forwarders[port, host] = subprocess.Popen(argv, stdin=listener.fileno(), start_new_session=True)

    def end_forward(self, port: int, host: str) -> None:
        """Stop forwarding to a port, and cut the connections that there are."""
        forwarder = self.forwarders.pop((port, host))
        forwarder.kill()
        forwarder.wait()


class AgentConnection:
    """The test process's end of the connection; any thread may ask, and the agent answers one after another."""

    def __init__(self, connection: socket.socket) -> None:
        # The kernel translates the agent's pid into one of ours (unix(7), SO_PEERCRED).
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.agent: int = struct.unpack("3i", credentials)[0]
        self.connection = Connection(connection.detach())
        self._numbers = count()
        self._sending = RLock()
        self._receiving = RLock()
        self._asked: list[int] = []
        """Numbers of requests that are not answered yet; those that nobody waits for any more are left out."""

        self._answers: dict[int, tuple[Any, Exception | None]] = {}

    def ask(self, verb: str, *arguments: object, handle: int | None = None) -> Any:
        """Have the agent carry out a verb, with a file descriptor if given one; return its result or raise its error.

        Raises ``EOFError`` or ``ConnectionError`` when the agent is gone.
        """
        with self._sending, uninterrupted():
            number = next(self._numbers)
            self._asked.append(number)
            self.connection.send((number, verb, arguments))
            if handle is not None:
                send_handle(self.connection, handle, 0)
        try:
            result, error = self._answer(number)
        except (EOFError, OSError):
            raise
        except BaseException:
            self._give_up(number)
            raise
        if error is not None:
            raise error
        return result

    def _answer(self, number: int) -> tuple[Any, Exception | None]:
        """Wait for an answer; those that come before it may be for other threads."""
        while number not in self._answers:
            # An interrupt ends the wait between two messages, never in the middle of one.
            if self.connection.poll(TURN_SECONDS):
                with self._receiving, uninterrupted():
                    self._receive()
        return self._answers.pop(number)

    def _receive(self) -> None:
        """Take in one answer, unless another thread was quicker."""
        if self.connection.poll(0):
            number, *answer = self.connection.recv()
            if number in self._asked:
                self._asked.remove(number)
                self._answers[number] = (answer[0], answer[1])

    def _give_up(self, number: int) -> None:
        """Forget a request, so that its answer is dropped; interrupt the agent if it is working on it."""
        if self._asked[:1] == [number]:
            os.kill(self.agent, signal.SIGINT)
        with contextlib.suppress(ValueError):
            self._asked.remove(number)
        self._answers.pop(number, None)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold interrupts back for a moment: one that raises within a message would lose the rest of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> None:
    """Connect to the socket of the command line, and serve."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[2])
    Agent(Connection(connection.detach())).serve()
