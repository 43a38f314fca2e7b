"""When an instance can be used: conditions as values, combined with ``&`` and ``|``.

    Instance(pkg=..., port=5000, ready=ready.http("/health") & ready.log("listening"))

Conditions are data; the deployment engine looks at them. Without one, an instance is ready when all its declared
ports accept connections, or, without ports, when its process manager says that it runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pytest_nixproc.errors import Fault

Value = TypeVar("Value")


class Condition:
    """Base of all conditions."""

    def __and__(self, other: Condition) -> Condition:
        return AllOf((self, other))

    def __or__(self, other: Condition) -> Condition:
        return AnyOf((self, other))


@dataclass(frozen=True)
class AllOf(Condition):
    """Holds when all of the conditions hold."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(str(condition) for condition in self.conditions)


@dataclass(frozen=True)
class AnyOf(Condition):
    """Holds when one of the conditions holds."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return "(" + " or ".join(str(condition) for condition in self.conditions) + ")"


@dataclass(frozen=True)
class TcpPort(Condition):
    """Holds when the port accepts connections."""

    port: int
    host: str = "127.0.0.1"

    def __str__(self) -> str:
        return f"port {self.port}"


@dataclass(frozen=True)
class UnixSocket(Condition):
    """Holds when the Unix socket accepts connections."""

    path: str

    def __str__(self) -> str:
        return f"socket {self.path}"


@dataclass(frozen=True)
class FileExists(Condition):
    """Holds when the file exists."""

    path: str

    def __str__(self) -> str:
        return f"file {self.path}"


@dataclass(frozen=True)
class HttpAnswer(Condition):
    """Holds when a GET request is answered with the status, or with any status below 400 when none is given."""

    url: str
    status: int | None = None

    def __str__(self) -> str:
        return f"HTTP answer of {self.url}"


@dataclass(frozen=True)
class LogLine(Condition):
    """Holds when a line of the instance's log matches the regular expression (searched, not anchored)."""

    pattern: str

    def __str__(self) -> str:
        return f"log line {self.pattern!r}"


@dataclass(frozen=True)
class CommandSucceeds(Condition):
    """Holds when the command ends with status 0; it runs on the machine, with the deployment's environment."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"success of {' '.join(self.argv)}"


@dataclass(frozen=True)
class Holds(Condition):
    """Holds when the function, called with the running instance, returns something true."""

    function: Callable[[Any], object]

    def __str__(self) -> str:
        return f"{getattr(self.function, '__name__', self.function)}()"


def tcp(port: int, host: str = "127.0.0.1") -> Condition:
    """Wait for a TCP port to accept connections."""
    return TcpPort(port, host)


def unix_socket(path: str | os.PathLike[str]) -> Condition:
    """Wait for a Unix socket to accept connections."""
    return UnixSocket(os.fspath(path))


def file(path: str | os.PathLike[str]) -> Condition:
    """Wait for a file to exist."""
    return FileExists(os.fspath(path))


def http(url: str, *, status: int | None = None) -> Condition:
    """Wait for an HTTP answer; a path alone (``/health``) goes to the instance's own port."""
    return HttpAnswer(url, status)


def log(pattern: str) -> Condition:
    """Wait for a line in the instance's log that matches a regular expression."""
    return LogLine(pattern)


def command(*argv: str) -> Condition:
    """Wait for a command to succeed."""
    return CommandSucceeds(argv)


def when(function: Callable[[Any], object]) -> Condition:
    """Wait for a function of the running instance to return something true."""
    return Holds(function)


def from_config(value: object) -> Condition:
    """Read a condition of a configuration file: ``{"tcp": 80}``, or ``{"any": [...]}`` for one of several.

    Several keys, or a list, stand for all of them. Raises ``ValueError`` with the reason when it is none.
    """
    makers: dict[str, Callable[[Any], Condition]] = {
        "tcp": lambda port: tcp(checked(port, int, "a number")),
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
    """Read a condition of a configuration file; what is wrong with it is added to the faults."""
    try:
        return from_config(value)
    except (ValueError, TypeError) as error:
        faults.append(Fault(path, str(error)))
        return None


def checked(value: object, kind: type[Value], title: str) -> Value:
    """Return an argument of a condition if it is of its kind and not empty."""
    if not isinstance(value, kind) or isinstance(value, bool) or not value:
        raise ValueError(f"holds {value!r}, which is not {title}")
    return value
