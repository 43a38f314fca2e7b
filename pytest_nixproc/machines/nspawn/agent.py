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
import time
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from operator import attrgetter
from threading import Lock, Thread
from typing import Any, Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.guardian.connection import TURN_SECONDS, WAKE_SECONDS
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.shielding import GivenUp, refuse_given_up, shielded
from pytest_nixproc.machines.waiting import Deadline

FORWARDER: Final = "/lib/systemd/systemd-socket-proxyd"
FORWARD: Final = 'exec 3<&0 < /dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$1"'
"""Hands the socket on standard input over as systemd would (sd_listen_fds(3))."""

GIVE_UP: Final = "give_up"
AT_ONCE: Final = ("forward", GIVE_UP)
"""The verbs that are not carried out beside others: the one reads on from the connection, the other is urgent."""

LIMITED: Final = ("processes.run", "processes.capture")
"""The verbs with a deadline, which is sent as the seconds that are left."""


class Agent:
    """The agent's end of the connection, on the machine; each request is carried out in a thread of its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.host = Host()
        self.own_verbs: dict[str, Callable[..., Any]] = {
            "processes.strays": self.strays,
            "forward": self.forward,
            "end_forward": self.end_forward,
            GIVE_UP: self.give_up,
        }
        self.forwarders: dict[tuple[int, str], subprocess.Popen[bytes]] = {}
        self.deadlines: dict[int, Deadline] = {}
        """Those of the commands that run, by the numbers of their requests."""

        self._sending = Lock()

    def serve(self) -> None:
        """Answer requests until the test process is gone; then end all processes, unless they were released."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                number, verb, arguments = self.connection.recv()
                if verb in AT_ONCE:
                    self.answer(number, verb, arguments)
                else:
                    Thread(target=self.answer, args=(number, verb, arguments), daemon=True).start()
        self.host.lifecycle.close()

    def answer(self, number: int, verb: str, arguments: Sequence[Any]) -> None:
        """Execute one request, and send its result or error."""
        result, error = None, None
        try:
            result = self.carry_out(number, verb, arguments)
        except Exception as problem:  # noqa: BLE001 - whoever has asked is told
            error = problem
        with self._sending, contextlib.suppress(ConnectionError):
            self.connection.send((number, result, error))

    def carry_out(self, number: int, verb: str, arguments: Sequence[Any]) -> Any:
        """Execute one request: a method of the agent itself, or else of the part of the host that the request names."""
        method = self.own_verbs.get(verb) or attrgetter(verb)(self.host)
        if verb not in LIMITED:
            return method(*arguments)
        # A deadline is tied to the clock of the process that has set it.
        *given, seconds = arguments
        self.deadlines[number] = self.host.deadline(seconds)
        try:
            return method(*given, self.deadlines[number])
        finally:
            del self.deadlines[number]

    def give_up(self, number: int) -> None:
        """End the commands of a request: the test process does not wait for it any more."""
        if deadline := self.deadlines.get(number):
            deadline.expire()

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


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return pid and user at the other end, as the kernel translates them into ours (unix(7), SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, user, _ = struct.unpack("3i", credentials)
    return pid, user


class AgentConnection:
    """The test process's end of the connection; any thread may ask, and waits for no other one's answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.agent, _ = peer_of(connection)
        self.connection = Connection(connection.detach())
        self._owner = os.getpid()
        self._numbers = count()
        self._sending = Lock()
        self._receiving = Lock()
        self._answers: dict[int, tuple[Any, Exception | None] | None] = {}
        """The answers that are waited for, by the numbers of their requests; None for those that have not come."""

    def ask(self, verb: str, *arguments: object, handle: int | None = None) -> Any:
        """Have the agent carry out a verb, with a file descriptor if given one; return its result or raise its error.

        Raises ``EOFError`` or ``ConnectionError`` when the agent is gone, and
        :class:`~pytest_nixproc.errors.MachineError` in a forked child, to which the agent does not belong.
        """
        if self._owner != os.getpid():
            brief = f"a forked child cannot use the machine of its parent, process {self._owner}"
            raise MachineError(brief, remedy="use the machine in the test itself")
        return shielded(lambda: self._asked(next(self._numbers), verb, arguments, handle))

    def _asked(self, number: int, verb: str, arguments: Sequence[object], handle: int | None) -> Any:
        self._answers[number] = None
        try:
            self._send(number, verb, arguments, handle)
            result, error = self._answer(number)
        except GivenUp:
            self._send(next(self._numbers), GIVE_UP, [number])
            raise
        finally:
            del self._answers[number]
        if error is not None:
            raise error
        return result

    def _send(self, number: int, verb: str, arguments: Sequence[object], handle: int | None = None) -> None:
        with self._sending:
            self.connection.send((number, verb, arguments))
            if handle is not None:
                send_handle(self.connection, handle, 0)

    def _answer(self, number: int) -> tuple[Any, Exception | None]:
        """Wait for an answer; those that come before it may be for other threads, or for nobody any more."""
        woken = time.monotonic()
        while (answer := self._answers[number]) is None:
            refuse_given_up()
            if time.monotonic() > woken + WAKE_SECONDS:
                # Somebody may have stopped the agent; one that runs does not notice.
                os.kill(self.agent, signal.SIGCONT)
                woken = time.monotonic()
            if self.connection.poll(TURN_SECONDS):
                with self._receiving:
                    self._receive()
        return answer

    def _receive(self) -> None:
        """Take in one answer, unless another thread was quicker."""
        if self.connection.poll(0):
            number, *answer = self.connection.recv()
            if number in self._answers:
                self._answers[number] = (answer[0], answer[1])

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def main() -> None:
    """Connect to the socket of the command line, and serve."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    Agent(Connection(connection.detach())).serve()
