"""Our end of the connection to the guardian: requests, replies and reports of exited processes; thread-safe."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from threading import Condition, RLock
from typing import Any, Final, Self

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.package import PACKAGE_ROOT
from pytest_nixproc.values.commands import Spawn

BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pytest_nixproc.machines.guardian.process import main; main()"
)
ANSWER_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 15.0
TURN_SECONDS: Final = 0.05
"""How long a thread listens before it looks whether another one has taken in what it waits for."""


class GuardianConnection:
    """One guardian process, and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.process = process
        self.connection = connection
        self.released = False
        self.exited: dict[int, int] = {}
        """Exit statuses by pid, without those of pids that another process has reused since."""

        self._replies: dict[int, dict[str, Any]] = {}
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
            argv = [sys.executable, "-I", "-S", "-c", BOOT, PACKAGE_ROOT]
            process = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
        return cls(process, ours)

    def spawn(self, commands: Sequence[Spawn]) -> list[int]:
        """Start processes in one round trip; raise when one of them cannot be started, while the others run."""
        fields = [(command.argv, dict(command.environment), command.output) for command in commands]
        reply = self._ask("spawn", commands=fields)
        if reply["errors"]:
            raise MachineError("a command could not be started", details="\n".join(reply["errors"]))
        pids: list[int] = reply["pids"]
        return pids

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
        self._ask("guard", root=root, argv=list(recovery), seconds=seconds)

    def unguard(self, root: str) -> None:
        """Take a deployment back from the guardian."""
        self._ask("unguard", root=root)

    def release(self) -> None:
        """Tell the guardian to let its processes live on, and to stay with them when we are gone."""
        self._send({"release": True})
        self.released = True

    def close(self) -> None:
        """Close the connection, and wait for the guardian to end all processes below it."""
        self.connection.close()
        if self.released:
            # It outlives us on purpose: Popen must not warn about that.
            self.process.returncode = 0
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSE_SECONDS)

    def listen(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait for messages, for ``seconds`` or 50 ms if that is less; return whether any may have been processed.

        One thread at a time listens, and wakes the others: those would sleep on beside what it has taken in for them.
        A condition that holds already is not waited for.
        """
        seconds = min(seconds, TURN_SECONDS)
        with self._news:
            if until():
                return True
            if not self._receiving.acquire(blocking=False):
                return self._news.wait(seconds)
        try:
            if not select.select([self.connection], [], [], seconds)[0]:
                return False
            self._receive()
            return True
        finally:
            self._receiving.release()
            with self._news:
                self._news.notify_all()

    def _receive(self) -> None:
        """Take in the messages that are there."""
        try:
            received = self.connection.recv(1 << 20)
        except ConnectionError:
            received = b""
        if not received:
            raise guardian_gone()
        *lines, self._pending = (self._pending + received).split(b"\n")
        for line in lines:
            # A signal that raises between two reads may have lost what one of them had read.
            with contextlib.suppress(json.JSONDecodeError):
                self._take_in(json.loads(line))

    def _take_in(self, message: dict[str, Any]) -> None:
        if "exited" in message:
            self.exited.update(message["exited"])
        for kind in ("spawned", "strays", "guarding", "synchronized"):
            if kind in message:
                self._replies[message[kind]] = message
        if "spawned" in message:
            # Pids come again: what its last owner's end was must not be taken for the new one's.
            for pid in message["pids"]:
                self.exited.pop(pid, None)

    def _ask(self, verb: str, **facts: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._send({verb: number, **facts})
        end = time.monotonic() + ANSWER_SECONDS
        while number not in self._replies:
            if not self.listen(TURN_SECONDS, lambda: number in self._replies) and time.monotonic() > end:
                raise MachineError(f"the guardian (pid {self.process.pid}) does not answer")
        return self._replies.pop(number)

    def _send(self, request: dict[str, Any]) -> None:
        try:
            # The first line break ends what a signal may have cut off.
            with self._sending:
                self.connection.sendall(b"\n" + json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise guardian_gone() from error


def guardian_gone() -> MachineError:
    """Return the error for a guardian that has ended before us."""
    return MachineError("the guardian of the deployed processes is gone", remedy="find out who killed it")
