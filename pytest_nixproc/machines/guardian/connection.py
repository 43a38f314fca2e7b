"""Our end of the connection to the guardian: requests, replies and reports of exited processes.

Any thread may ask. Messages are written and read where no signal handler raises, so that none is lost or torn. The
connection belongs to the process that has made it: a forked child has to make one of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from threading import Condition, RLock
from typing import Any, Final, Self

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.package import python_program
from pytest_nixproc.machines.shielding import refuse_given_up, shielded
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.system_errors import remedy_of

ANSWER_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 15.0
WAKE_SECONDS: Final = 1.0
"""How long nothing is heard of a guardian before it is woken: somebody may have stopped it (SIGSTOP)."""

TURN_SECONDS: Final = 0.05
"""How long a thread listens before it looks whether another one has taken in what it waits for."""


class GuardianConnection:
    """One guardian process, and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.process = process
        self.connection = connection
        self.owner = os.getpid()
        """The process whose connection it is."""

        self.released = False
        self.exited: dict[int, int] = {}
        """Exit statuses by pid, without those of pids that another process has reused since."""

        self.guarded: dict[str, tuple[Sequence[str], float]] = {}
        """The deployments that it guards, each with the command that recovers it and the seconds that this may take."""

        self.is_gone = False
        """Whether it is known to have ended, or has been killed because it did not answer."""

        self.is_successor = False
        """Whether it came after another one, and is not above what that one has started."""

        self._heard = time.monotonic()
        self._replies: dict[int, dict[str, Any] | None] = {}
        """The replies that are waited for, by the numbers of their requests; None for those that have not come."""

        self._numbers = count()
        self._pending = b""
        self._sending = RLock()
        self._receiving = RLock()
        """Two, because whoever is about to send must not keep others from making room for what the guardian sends."""

        self._news = Condition()

    @classmethod
    def start(cls) -> Self:
        """Start a guardian in its own session and in ``/``, which inherits only one end of a socket pair."""
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-I", "-S", "-c", python_program("machines.guardian.process")]
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                brief = f"the guardian cannot be started: {error.strerror}: {sys.executable}"
                raise MachineError(brief, remedy=remedy_of(error)) from error
        return cls(process, ours)

    def spawn(self, commands: Sequence[Spawn]) -> list[int]:
        """Start processes in one round trip; raise when one of them cannot be started, while the others run."""
        fields = [(one.argv, dict(one.environment), one.output, one.is_forked) for one in commands]
        reply = self._ask("spawn", commands=fields)
        if reply["errors"]:
            raise MachineError("a command could not be started", details="\n".join(reply["errors"]))
        pids: list[int] = reply["pids"]
        return pids

    def warm_up(self, interpreter: Sequence[str], module: str) -> None:
        """Have a template import a module, and do not wait for it."""
        shielded(lambda: self._send({"warm_up": list(interpreter), "module": module}))

    def strays(self, tag: str, spare: Sequence[int]) -> list[int]:
        """Return the guardian's descendants with a tag, and untagged orphans that are not below ``spare``."""
        pids: list[int] = self._ask("strays", tag=tag, spare=list(spare))["pids"]
        return pids

    def synchronize(self) -> None:
        """Wait until the ends of all processes that have ended by now are reported."""
        self._ask("synchronize")

    def guard(self, root: str, recovery: Sequence[str], seconds: float) -> None:
        """Register a deployment and its recovery command with the guardian; return once the guardian has confirmed.

        ``seconds`` is how long its programs may take to stop.
        """
        self.guarded[root] = recovery, seconds
        self._ask("guard", root=root, argv=list(recovery), seconds=seconds)

    def unguard(self, root: str) -> None:
        """Take a deployment back from the guardian."""
        self.guarded.pop(root, None)
        self._ask("unguard", root=root)

    def release(self) -> None:
        """Tell the guardian to let its processes live on, and to stay with them when we are gone."""
        shielded(lambda: self._send({"release": True}))
        self.released = True

    def close(self) -> None:
        """Close the connection, and wait for the guardian to end all processes below it; one of our parent stays."""
        if self.released or self.owner != os.getpid():
            # It outlives us on purpose: Popen must not warn about that.
            self.process.returncode = 0
        else:
            self._await_end()
        self.connection.close()

    def _await_end(self) -> None:
        """Say that nothing more will be asked, and wait until the guardian has ended."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + CLOSE_SECONDS
        while self.process.returncode is None and time.monotonic() < end:
            self.wake()
            # It closes its side when it ends: to wait for that is finer than what Popen does.
            with contextlib.suppress(OSError, ValueError):
                while select.select([self.connection], [], [], WAKE_SECONDS)[0] and self.connection.recv(1 << 20):
                    if time.monotonic() > end:
                        break
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(WAKE_SECONDS)

    def wake(self) -> None:
        """Have the guardian go on if somebody has stopped it; one that runs does not notice."""
        self.process.send_signal(signal.SIGCONT)

    def listen(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait for messages, for ``seconds`` or 50 ms if that is less; return whether any may have been processed.

        One thread at a time listens, and wakes the others: those would sleep on beside what it has taken in for them.
        A condition that holds already is not waited for.
        """
        return shielded(lambda: self._listen(min(seconds, TURN_SECONDS), until))

    def _listen(self, seconds: float, until: Callable[[], bool]) -> bool:
        with self._news:
            if until():
                return True
            if not self._receiving.acquire(blocking=False):
                return self._news.wait(seconds)
        try:
            if not self._has_come(seconds):
                if time.monotonic() > self._heard + WAKE_SECONDS:
                    self.wake()
                    self._heard = time.monotonic()
                return False
            self._receive()
            return True
        finally:
            self._receiving.release()
            with self._news:
                self._news.notify_all()

    def _has_come(self, seconds: float) -> bool:
        """Wait for something to read; raises where another thread has closed the connection."""
        try:
            return bool(select.select([self.connection], [], [], seconds)[0])
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def _receive(self) -> None:
        """Take in the messages that are there."""
        try:
            received = self.connection.recv(1 << 20)
        except OSError:
            received = b""
        if not received:
            raise self._lost()
        self._heard = time.monotonic()
        *lines, self._pending = (self._pending + received).split(b"\n")
        for line in lines:
            self._take_in(json.loads(line))

    def _take_in(self, message: dict[str, Any]) -> None:
        if "exited" in message:
            self.exited.update(message["exited"])
        for kind in ("spawned", "strays", "guarding", "synchronized"):
            # To a request that was given up, nobody waits for the reply.
            if message.get(kind) in self._replies:
                self._replies[message[kind]] = message
        if "spawned" in message:
            # Pids come again: what its last owner's end was must not be taken for the new one's.
            for pid in message["pids"]:
                self.exited.pop(pid, None)

    def _ask(self, verb: str, **facts: Any) -> dict[str, Any]:
        return shielded(lambda: self._asked(next(self._numbers), verb, facts))

    def _asked(self, number: int, verb: str, facts: dict[str, Any]) -> dict[str, Any]:
        self._replies[number] = None
        try:
            self._send({verb: number, **facts})
            end = time.monotonic() + ANSWER_SECONDS
            while (reply := self._replies[number]) is None:
                refuse_given_up()
                has_come = self.listen(TURN_SECONDS, lambda: self._replies[number] is not None)
                if not has_come and time.monotonic() > end:
                    raise self._killed()
            return reply
        finally:
            del self._replies[number]

    def _killed(self) -> MachineError:
        """Kill a guardian that does not answer, so that another one can follow it; return the error."""
        self.process.kill()
        self.is_gone = True
        brief = f"the guardian (pid {self.process.pid}) did not answer for {ANSWER_SECONDS:g} s, and was killed"
        return MachineError(brief, remedy="find out what has stopped it: ours cannot be frozen as a whole")

    def _send(self, request: dict[str, Any]) -> None:
        if self.owner != os.getpid():
            raise MachineError(f"the guardian (pid {self.process.pid}) is that of our parent, process {self.owner}")
        try:
            with self._sending:
                self.connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self._lost() from error

    def _lost(self) -> MachineError:
        """Return the error for a guardian that has ended before us; the next request finds its successor."""
        self.is_gone = True
        return MachineError("the guardian of the deployed processes is gone", remedy="find out who killed it")
