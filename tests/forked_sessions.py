"""Sessions of pytest that tests start, forked from an interpreter that has imported pytest and the plugin already.

Two thirds of a small session's time are imports. A forked session has what the started one would have had:
arguments, environment, directory, streams and exit status; and it ends as an interpreter ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[1]
AS_A_MODULE: Final = (sys.executable, "-mpytest")
"""How :meth:`pytest.Pytester.runpytest_subprocess` starts a session."""

NOT_IMPORTED: Final = ("pytest_nixproc.testing", "pytest_nixproc.__main__")
"""What a session imports in its own time: suites, whose assertions it rewrites, and what is run."""


def interpreter_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that only an interpreter of the session's own would heed."""
    return {name: environment[name] for name in environment if name.startswith("PYTHON") and name != "PYTHONPATH"}


class ForkedSession:
    """A session that was forked, as far as :meth:`pytest.Pytester.run` needs it."""

    stdin = None

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.pid = int(self._line())

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status, or the negated number of the signal."""
        self.connection.settimeout(timeout)
        try:
            return int(self._line())
        except TimeoutError:
            raise subprocess.TimeoutExpired(AS_A_MODULE, timeout or 0.0) from None

    def kill(self) -> None:
        """End the session."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _line(self) -> bytes:
        received = b""
        while not received.endswith(b"\n"):
            # No more than the line: the next one may have come already.
            if not (part := self.connection.recv(1)):
                raise EOFError("the interpreter that forks sessions is gone")
            received += part
        return received


class SessionForker:
    """The interpreter from which sessions are forked, one after the other; it imports while the first test sets up."""

    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair()
        self.variables = interpreter_variables(os.environ)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked_sessions", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        """End the interpreter."""
        self.connection.close()
        self.process.wait()

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> ForkedSession:
        """Start a session in this process's directory, which writes to ``streams``: standard output and error."""
        request = json.dumps([list(arguments), dict(environment), os.getcwd()]).encode()
        socket.send_fds(self.connection, [len(request).to_bytes(4, "big")], streams)
        self.connection.sendall(request)
        return ForkedSession(self.connection)

    def popen(self, otherwise: Callable[..., Any]) -> Callable[..., Any]:
        """Return what does for :meth:`pytest.Pytester.popen`: other processes than sessions start as before."""

        def popen(command: Sequence[str], **options: Any) -> Any:
            reads_nothing = options.get("stdin") is pytest.Pytester.CLOSE_STDIN
            if (
                tuple(command[:2]) != AS_A_MODULE
                or not reads_nothing
                or interpreter_variables(os.environ) != self.variables
            ):
                return otherwise(command, **options)
            streams = [options["stdout"].fileno(), options["stderr"].fileno()]
            path = filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")])
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
            return self.fork(command[2:], environment, streams)

        return popen


def serve(connection: socket.socket) -> int | None:
    """Fork a session for each request, and tell its pid and its end; return the exit status in a session."""
    while True:
        head, streams, *_ = socket.recv_fds(connection, 4, 2)
        if not head:
            return None
        arguments, environment, directory = json.loads(exactly(connection, int.from_bytes(head, "big")))
        if not (pid := os.fork()):
            connection.close()
            become(arguments, environment, directory, streams)
            return int(pytest.main(arguments))
        for stream in streams:
            os.close(stream)
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def exactly(connection: socket.socket, count: int) -> bytes:
    """Receive a number of bytes."""
    received = b""
    while len(received) < count and (part := connection.recv(count - len(received))):
        received += part
    return received


def become(arguments: Sequence[str], environment: Mapping[str, str], directory: str, streams: Sequence[int]) -> None:
    """Make this process what an interpreter is that has just been started for a session."""
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    searched = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    os.chdir(directory)
    # In place of the directory from which this interpreter was started as a module, and of what it was told to search.
    sys.path[: 1 + len(searched)] = [directory, *environment["PYTHONPATH"].split(os.pathsep)]
    sys.argv[:] = [pytest.__file__.replace("__init__", "__main__"), *arguments]


class Imports:
    """A plugin that imports all of the package, by the hook that rewrites assertions."""

    def pytest_configure(self) -> None:
        """Import whatever a session might need."""
        package = importlib.import_module("pytest_nixproc")
        for module in pkgutil.walk_packages(package.__path__, "pytest_nixproc."):
            if not module.name.startswith(NOT_IMPORTED):
                importlib.import_module(module.name)


def warm_up() -> None:
    """Run a session without tests: what it imports is there for those that are forked."""
    with tempfile.TemporaryDirectory() as directory, open(os.devnull, "w", encoding="utf-8") as nowhere:
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = nowhere
        try:
            quietly = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", f"--rootdir={directory}", directory]
            pytest.main(quietly, plugins=[Imports()])
        finally:
            sys.stdout, sys.stderr = streams


if __name__ == "__main__":
    warm_up()
    # What no session will free need not be looked at by its collections.
    gc.freeze()
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
