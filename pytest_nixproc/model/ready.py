"""Conditions that say when an instance can be used, as values that are combined with ``&`` and ``|``.

    Instance(pkg=..., port=5000, ready=ready.http("/health") & ready.log("listening"))

Conditions are data; the deployment looks at them. Without one, an instance is ready when all its declared
ports accept connections, or, without ports, when its process manager says that it runs. An instance's declared
ports count only when its own processes listen there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pytest_nixproc.errors import Fault
from pytest_nixproc.values.value import Value

Wanted = TypeVar("Wanted")


class Condition:
    """Base of all conditions."""

    def __and__(self, other: Condition) -> Condition:
        return AllOf((self, other))

    def __or__(self, other: Condition) -> Condition:
        return AnyOf((self, other))


class AllOf(Value, Condition):
    """A condition that holds when all of its conditions hold."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(str(condition) for condition in self.conditions)


class AnyOf(Value, Condition):
    """A condition that holds when one of its conditions holds."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return "(" + " or ".join(str(condition) for condition in self.conditions) + ")"


class TcpPort(Value, Condition):
    """A condition that holds when a TCP port accepts connections."""

    port: int
    host: str = ""
    """Address or name to connect to; empty for the instance's own address."""

    def __str__(self) -> str:
        return f"port {self.port}{f' of {self.host}' if self.host else ''}"


class UdpPort(Value, Condition):
    """A condition that holds when the instance is bound to a UDP port."""

    port: int

    def __str__(self) -> str:
        return f"UDP port {self.port}"


class UnixSocket(Value, Condition):
    """A condition that holds when a Unix socket accepts connections."""

    path: str

    def __str__(self) -> str:
        return f"socket {self.path}"


class FileExists(Value, Condition):
    """A condition that holds when a file exists."""

    path: str

    def __str__(self) -> str:
        return f"file {self.path}"


class HttpAnswer(Value, Condition):
    """A condition that holds when a GET request is answered with the expected status."""

    url: str
    status: int | None = None
    """Expected status; None for any below 400."""

    def __str__(self) -> str:
        return f"HTTP answer of {self.url}"


class LogLine(Value, Condition):
    """A condition that holds when a line of the instance's log matches a regular expression."""

    pattern: str
    """The regular expression, which is searched in a line, not anchored."""

    def __str__(self) -> str:
        return f"log line {self.pattern!r}"

    def is_in(self, log: str) -> bool:
        """Tell whether a line of a log matches; lines may end as those of networks do, in CR LF."""
        lines = (log, log.replace("\r\n", "\n")) if "\r\n" in log else (log,)
        return any(re.search(self.pattern, text, re.MULTILINE) for text in lines)


class CommandSucceeds(Value, Condition):
    """A condition that holds when a command on the machine, in the deployment's environment, ends with status 0."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"success of {' '.join(self.argv)}"


class Holds(Value, Condition):
    """A condition that holds when a function, called with the running instance, returns something true."""

    function: Callable[[Any], object]

    def __str__(self) -> str:
        return f"{getattr(self.function, '__name__', self.function)}()"


def tcp(port: int, host: str = "") -> Condition:
    """Return a condition that holds when a TCP port accepts connections, at the instance's own address or a host's."""
    return TcpPort(port, host)


def udp(port: int) -> Condition:
    """Return a condition that holds when one of the instance's processes is bound to a UDP port.

    Nobody is asked there: what a protocol says is for ``command`` or ``when``.
    """
    return UdpPort(port)


def unix_socket(path: str | os.PathLike[str]) -> Condition:
    """Return a condition that holds when a Unix socket accepts connections."""
    return UnixSocket(os.fspath(path))


def file(path: str | os.PathLike[str]) -> Condition:
    """Return a condition that holds when a file exists."""
    return FileExists(os.fspath(path))


def http(url: str, *, status: int | None = None) -> Condition:
    """Return a condition that holds when an HTTP GET succeeds; a path alone (``/health``) goes to the instance's port.

    It succeeds when the answer has the expected status: ``status``, or any below 400.
    """
    return HttpAnswer(url, status)


def log(pattern: str) -> Condition:
    """Return a condition that holds when a line that the instance has logged since its start matches a pattern.

    The pattern is a regular expression. After a restart by its manager alone, an earlier line counts, too.
    """
    return LogLine(pattern)


def command(*argv: str) -> Condition:
    """Return a condition that holds when a command on the machine ends with status 0."""
    return CommandSucceeds(argv)


def when(function: Callable[[Any], object]) -> Condition:
    """Return a condition that holds when a function, called with the running instance, returns something true."""
    return Holds(function)


def from_config(value: object) -> Condition:
    """Read a condition of a configuration file: ``{"tcp": 80}``, or ``{"any": [...]}`` for one of several.

    Several keys, or a list, stand for all of them. Raises ``ValueError`` with the reason when it is none.
    """
    makers: dict[str, Callable[[Any], Condition]] = {
        "tcp": lambda port: tcp(checked(port, int, "a number")),
        "udp": lambda port: udp(checked(port, int, "a number")),
        "unixSocket": lambda path: unix_socket(checked(path, str, "text")),
        "file": lambda path: file(checked(path, str, "text")),
        "http": lambda url: http(checked(url, str, "text")),
        "log": lambda pattern: log(re.compile(checked(pattern, str, "text")).pattern),
        "command": lambda argv: command(*[checked(word, str, "text") for word in checked(argv, list, "a list")]),
        "any": lambda items: AnyOf(tuple(from_config(item) for item in checked(items, list, "a list"))),
    }
    if isinstance(value, list) and value:
        return AllOf(tuple(from_config(item) for item in value))
    if not isinstance(value, Mapping) or not value or not makers.keys() >= value.keys():
        raise ValueError(f"is {value!r}; conditions are {', '.join(makers)}")
    try:
        return AllOf(tuple(makers[kind](argument) for kind, argument in value.items()))
    except re.error as error:
        raise ValueError(f"is {value!r}; its pattern is no regular expression: {error}") from error


def read_condition(value: object, path: str, faults: list[Fault]) -> Condition | None:
    """Read a condition of a configuration file; for one that cannot be read, add a fault and return None."""
    try:
        return from_config(value)
    except (ValueError, TypeError) as error:
        faults.append(Fault(path, str(error)))
        return None


def checked(value: object, kind: type[Wanted], title: str) -> Wanted:
    """Return a condition's argument if it has the expected type and is neither empty nor 0.

    Raises ``ValueError`` otherwise.
    """
    if not isinstance(value, kind) or isinstance(value, bool) or not value:
        raise ValueError(f"holds {value!r}, which is not {title}")
    return value
