"""The guardian's end of templates: each is started once, and then asked for processes; standard library only."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

from pytest_nixproc.machines.package import python_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

HAS_PRCTL: Final = sys.platform.startswith("linux")
ANSWER_SECONDS: Final = 10.0
"""How long a template may take to import and to fork."""


class Template:
    """One template, which this process has started; it ends when the connection is closed."""

    def __init__(self, interpreter: Sequence[str], module: str, defaults: Sequence[int]) -> None:
        self.connection, theirs = socket.socketpair()
        argv = [*interpreter, "-c", python_program("machines.guardian.template", module)]
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        with theirs:
            self.pid = os.posix_spawn(argv[0], argv, {}, file_actions=actions, setsid=True, setsigdef=defaults)

    def spawn(self, argv: list[str], environment: dict[str, str], output: str) -> int | None:
        """Return the pid of a new process, None where there is no answer; raises OSError for the output."""
        try:
            self.connection.sendall(json.dumps([argv, environment, output]).encode() + b"\n")
            answer = self._line()
        except OSError:
            return None
        if answer is None:
            # It holds the connection open, so that this is nobody else's pid.
            os.kill(self.pid, signal.SIGKILL)
            return None
        kind, number = json.loads(answer)
        if kind == "errno":
            raise OSError(number, os.strerror(number), output)
        return int(number)

    def _line(self) -> bytes | None:
        """Return the next line, or None if it does not come in time; raises OSError when none will come any more."""
        received = b""
        while not received.endswith(b"\n"):
            if not select.select([self.connection], [], [], ANSWER_SECONDS)[0]:
                return None
            if not (part := self.connection.recv(4096)):
                raise ConnectionResetError
            received += part
        return received

    def end(self) -> None:
        """Have it end; what was forked from it goes on."""
        self.connection.close()


class Templates:
    """The templates of a guardian, by what they were started with."""

    def __init__(self, defaults: Sequence[int]) -> None:
        self._defaults = defaults
        self._running: dict[tuple[str, ...], Template | None] = {}
        """None for those that cannot be had here."""

    @property
    def pids(self) -> set[int]:
        """Those of the templates that run."""
        return {template.pid for template in self._running.values() if template}

    def started(self, interpreter: Sequence[str], module: str) -> Template | None:
        """Return a template, which is started if it does not run yet; None where there can be none."""
        key = (*interpreter, module)
        if HAS_PRCTL and key not in self._running:
            try:
                self._running[key] = Template(interpreter, module, self._defaults)
            except (OSError, NotImplementedError):
                self._running[key] = None
        return self._running.get(key)

    def spawn(self, argv: list[str], environment: dict[str, str], output: str) -> int | None:
        """Return the pid of a new process; None where it has to be executed. Raises OSError for the output."""
        place = argv.index("-m")
        interpreter, module = argv[:place], argv[place + 1]
        template = self.started(interpreter, module)
        if template is None:
            return None
        if (pid := template.spawn(argv, environment, output)) is None:
            template.end()
            self._running[*interpreter, module] = None
        return pid

    def end(self) -> None:
        """End all of them."""
        for template in self._running.values():
            if template:
                template.end()
        self._running.clear()
