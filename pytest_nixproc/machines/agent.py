"""The agent: carries out on a throwaway machine what the test process asks of it, with that machine's own eyes.

It is a unit of the machine, and connects to a socket in a directory that the machine shares with the test process. What
it does there is what :class:`~pytest_nixproc.machines.host.Host` does on the machine of the tests. Messages are pickled
(both ends are this package): ``(NUMBER, VERB, ARGUMENTS)``, and back ``(NUMBER, RESULT, ERROR)``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Final

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Spawn
from pytest_nixproc.machines.host import Host

BOOT: Final = "import sys; sys.path.insert(0, sys.argv[1]); from pytest_nixproc.machines.agent import main; main()"

FORWARDER: Final = "/lib/systemd/systemd-socket-proxyd"
FORWARD: Final = 'exec 3<&0 < /dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$1"'
"""Hands the socket on standard input over as systemd would (sd_listen_fds(3))."""

INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)


class Agent:
    """The end on the machine."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.host = Host()
        self.forwarders: dict[int, subprocess.Popen[bytes]] = {}
        self.is_busy = False
        signal.signal(signal.SIGINT, self.interrupt)

    def interrupt(self, *_: object) -> None:
        """Give up what is being done: the test process does not wait for it any more."""
        if self.is_busy:
            raise InterruptedError("given up")

    def serve(self) -> None:
        """Answer until the test process is gone; what it has not told to live on ends with it."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                number, verb, arguments = self.connection.recv()
                self.connection.send((number, *self.answer(verb, arguments)))
        self.host.close()

    def answer(self, verb: str, arguments: Sequence[Any]) -> tuple[Any, Exception | None]:
        """Carry out one verb: one of this object's own, or else of the host's."""
        try:
            self.is_busy = True
            carry_out = getattr(self, f"do_{verb}", None) or getattr(self.host, verb)
            return carry_out(*arguments), None
        except (NixprocError, OSError) as error:
            return None, error
        finally:
            self.is_busy = False

    def do_run(self, commands: Sequence[Spawn], seconds: float) -> list[int | None]:
        """Run commands within a number of seconds: a deadline is tied to the clock of the process that set it."""
        return self.host.run(commands, self.host.deadline(seconds))

    def do_capture(self, command: Spawn, seconds: float) -> tuple[int | None, str]:
        """Run one command within a number of seconds."""
        return self.host.capture(command, self.host.deadline(seconds))

    def do_strays(self, tag: str) -> list[int]:
        """Return what is left of a deployment, started here or by the machine's own service manager."""
        return list(dict.fromkeys([*self.host.strays(tag), *self.host.tagged(tag)]))

    def do_forward(self, port: int) -> None:
        """Forward what comes in on a socket, which is sent after the request, to a port of this machine's network."""
        listener = socket.socket(fileno=recv_handle(self.connection))
        with listener:
            argv = ["/bin/sh", "-c", FORWARD, FORWARDER, f"127.0.0.1:{port}"]
            self.forwarders[port] = subprocess.Popen(argv, stdin=listener.fileno(), start_new_session=True)

    def do_end_forward(self, port: int) -> None:
        """Stop forwarding to a port, and cut the connections that there are."""
        forwarder = self.forwarders.pop(port)
        forwarder.kill()
        forwarder.wait()


class AgentConnection:
    """The end in the test process."""

    def __init__(self, connection: socket.socket) -> None:
        # The kernel translates the agent's pid into one of ours (unix(7), SO_PEERCRED).
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.agent: int = struct.unpack("3i", credentials)[0]
        self.connection = Connection(connection.detach())
        self._numbers = count()

    def ask(self, verb: str, *arguments: object, handle: int | None = None) -> Any:
        """Have a verb carried out, with a file descriptor to go with it maybe; return what it returns, raise its error.

        Raises ``EOFError`` or ``ConnectionError`` when the agent is gone.
        """
        number = next(self._numbers)
        with uninterrupted():
            self.connection.send((number, verb, arguments))
            if handle is not None:
                send_handle(self.connection, handle, 0)
        try:
            result, error = self._answer(number)
        except (EOFError, OSError):
            raise
        except BaseException:
            os.kill(self.agent, signal.SIGINT)
            raise
        if error is not None:
            raise error
        return result

    def _answer(self, number: int) -> tuple[Any, Exception | None]:
        """Wait for an answer, past those that nobody has waited for to the end."""
        while True:
            # An interrupt ends the wait between two messages, never in the middle of one.
            self.connection.poll(None)
            with uninterrupted():
                answered, result, error = self.connection.recv()
            if answered == number:
                return result, error

    def close(self) -> None:
        """Hang up."""
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
