"""XML-RPC over a Unix socket, by connections that any number of threads can use."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, Final, TypeVar
from xmlrpc import client

from pytest_nixproc.machines.forks import renew_after_fork
from pytest_nixproc.machines.shielding import shielded

Result = TypeVar("Result")

ANSWER_SECONDS: Final = 30.0
"""How long an answer may take, where nothing else says so."""


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class UnixTransport(client.Transport):
    """XML-RPC over a Unix socket, whose connection one request at a time can use."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.seconds = ANSWER_SECONDS
        """How long an answer may take."""

    def request(self, *arguments: Any, **options: Any) -> Any:
        """Send a request and return the answer; any exception closes the connection with the rest of the answer."""
        try:
            return super().request(*arguments, **options)
        except BaseException:
            self.close()
            raise

    def make_connection(self, host: Any) -> HTTPConnection:
        """Return the kept connection or a new one, which is kept where the base class's ``close`` looks for it."""
        connection = self._connection[1] or UnixConnection(self.path)
        connection.timeout = self.seconds
        if connection.sock is not None:
            connection.sock.settimeout(self.seconds)
        self._connection = host, connection
        return connection


class Connections:
    """Connections to one server: each request has one for itself, so that none waits for another one's answer."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._owner = os.getpid()
        self._idle: list[UnixTransport] = []
        renew_after_fork(self)

    def renew(self) -> None:
        """Close the connections of our parent, which reads its own answers from them."""
        self.close()

    def ask(self, request: Callable[[client.ServerProxy], Result], seconds: float) -> Result:
        """Make a request, whose answer may take some seconds, where no signal handler raises; return the answer."""
        return shielded(lambda: self._asked(request, seconds))

    def _asked(self, request: Callable[[client.ServerProxy], Result], seconds: float) -> Result:
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = UnixTransport(self.path)
        transport.seconds = seconds
        try:
            return request(client.ServerProxy("http://localhost", transport=transport))
        finally:
            if self._owner != os.getpid():
                # A child takes nothing down, so that nobody would close it later.
                transport.close()
            else:
                self._idle.append(transport)

    def close(self) -> None:
        """Close all connections that are not in use."""
        while self._idle:
            self._idle.pop().close()
