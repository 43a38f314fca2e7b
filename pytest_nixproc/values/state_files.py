"""The directories and files that an instance has in its state before it starts, as its model describes them."""

from __future__ import annotations

from pytest_nixproc.values.value import Value


class StateEntry(Value, kw_only=True):
    """A directory or a file that is there before the program starts."""

    path: str
    mode: int
    user: str = ""
    """The user that it belongs to; empty for the one that the process runs as."""

    group: str = ""
    """Its group; empty for the user's primary one."""


class StateDirectory(StateEntry, kw_only=True):
    """A directory for the program."""

    mode: int = 0o755


class StateFile(StateEntry, kw_only=True):
    """A file for the program, a configuration say."""

    mode: int = 0o600
    text: str
    secret: bool = False
    """Whether people are not to read its text in plans, reports and errors."""
