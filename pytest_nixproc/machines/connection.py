"""Our end of the guardian: requests, replies, and what it has reported so far."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.api import Spawn

BOOT: Final = "import sys; sys.path.insert(0, sys.argv[1]); from pytest_nixproc.machines.guardian import main; main()"
PACKAGE_ROOT: Final = str(Path(__file__).parents[2])
ANSWER_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 15.0


class GuardianConnection:
    """One guardian process, and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.process = process
        self.connection = connection
        self.released = False
        self.exited: dict[int, int] = {}
        """Exit statuses of all processes that the guardian has seen end, by pid."""
        self._replies: dict[int, dict[str, Any]] = {}
        self._numbers = count()
        self._pending = b""

    @classmethod
    def start(cls) -> Self:
        """Start a guardian with nothing of ours but one end of a socket pair, away from our terminal and directory."""
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
        """Start processes in one round trip; raises when one of them cannot be started, the others run then."""
        fields = [(command.argv, dict(command.environment), command.output) for command in commands]
        reply = self._ask("spawn", commands=fields)
        if reply["errors"]:
            raise MachineError("a command could not be started", details="\n".join(reply["errors"]))
        pids: list[int] = reply["pids"]
        return pids

    def strays(self, tag: str, spare: Sequence[int]) -> list[int]:
        """Ask which processes below the guardian carry a tag, or none at all and are not to be spared."""
        pids: list[int] = self._ask("strays", tag=tag, spare=list(spare))["pids"]
        return pids

    def synchronize(self) -> None:
        """Return when the ends of all processes that have ended by now are reported."""
        self.strays("", ())

    def guard(self, root: str, recovery: Sequence[str]) -> None:
        """Give a deployment to the guardian, with the command that recovers it; return when it has it."""
        self._ask("guard", root=root, argv=list(recovery))

    def unguard(self, root: str) -> None:
        """Take a deployment back from the guardian."""
        self._ask("unguard", root=root)

    def release(self) -> None:
        """Tell the guardian to let its processes live on, and to stay with them when we are gone."""
        self._send({"release": True})
        self.released = True

    def close(self) -> None:
        """Hang up, and wait for the guardian to end what is below it."""
        self.connection.close()
        if self.released:
            # It outlives us on purpose: Popen must not warn about that.
            self.process.returncode = 0
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSE_SECONDS)

    def listen(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for messages, and take in those that came; return whether any did."""
        if not select.select([self.connection], [], [], seconds)[0]:
            return False
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
        return True

    def _take_in(self, message: dict[str, Any]) -> None:
        if "exited" in message:
            self.exited.update(message["exited"])
        for kind in ("spawned", "strays", "guarding"):
            if kind in message:
                self._replies[message[kind]] = message
        if "spawned" in message:
            # Pids come again: what its last owner's end was must not be taken for the new one's.
            for pid in message["pids"]:
                self.exited.pop(pid, None)

    def _ask(self, verb: str, **facts: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._send({verb: number, **facts})
        while number not in self._replies:
            if not self.listen(ANSWER_SECONDS):
                raise MachineError(f"the guardian (pid {self.process.pid}) does not answer")
        return self._replies.pop(number)

    def _send(self, request: dict[str, Any]) -> None:
        try:
            # The first line break ends what a signal may have cut off.
            self.connection.sendall(b"\n" + json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise guardian_gone() from error


def guardian_gone() -> MachineError:
    """Return the error for a guardian that has ended before us."""
    return MachineError("the guardian of the deployed processes is gone", remedy="find out who killed it")
