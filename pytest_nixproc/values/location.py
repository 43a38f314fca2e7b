"""The place where a part of a model was written."""

from __future__ import annotations

import os

from pytest_nixproc.values.value import Value


class Call(Value):
    """A call on the way from a line of a model to the part that it makes: a line of a function that was called."""

    function: str
    """Name of the function."""

    file: str
    line: int
    """Number of the line in it, from 1."""


class Location(Value):
    """A line of a file, and the functions through which it has made something."""

    file: str
    line: int
    """Number of the line, from 1."""

    via: tuple[Call, ...] = ()
    """The calls below that line, the outermost first; empty where the line itself says all."""

    def __str__(self) -> str:
        calls = [f"via {call.function}, {self._line_of(call)}" for call in self.via]
        return f"{near(self.file)}:{self.line}" + (f" ({'; '.join(calls)})" if calls else "")

    def _line_of(self, call: Call) -> str:
        return f"line {call.line}" if call.file == self.file else f"{near(call.file)}:{call.line}"


def near(file: str) -> str:
    """Return a path as seen from the working directory, if it lies below that."""
    relative = os.path.relpath(file)
    return file if relative.startswith(os.pardir) else relative
