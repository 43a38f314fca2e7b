"""The form of a command, and the exit statuses of all of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Final

from pytest_nixproc.values.value import Value

Say = Callable[[str], None]
"""Prints a line of human-readable output; prints nothing where JSON is asked for."""

DEFAULT: Final = "%(default)s unless something else is said"


class ExitStatus(IntEnum):
    """The exit status of a command: each number means the same for all."""

    DONE = 0
    FAILED = 1
    WRONG_CALL = 2
    RESTORED = 3
    INCONSISTENT = 4
    BUSY = 5
    NOT_READY = 8
    CHANGES = 10


MEANINGS: Final[Mapping[ExitStatus, str]] = {
    ExitStatus.DONE: "done, and nothing is wrong",
    ExitStatus.FAILED: "it failed and nothing was changed, or `check` has found an error",
    ExitStatus.WRONG_CALL: "the call is wrong, or what it names cannot be read",
    ExitStatus.RESTORED: "it failed, and everything is as it was before",
    ExitStatus.INCONSISTENT: "it was not done cleanly, or something is left; the output says what",
    ExitStatus.BUSY: "somebody else is at work on it",
    ExitStatus.NOT_READY: "not all instances are ready",
    ExitStatus.CHANGES: "there would be changes",
}
"""The table of the documentation; commands that change running systems need all of them."""


class Result(Value):
    """The result of a command: its exit status, and what it prints as JSON."""

    status: ExitStatus = ExitStatus.DONE
    facts: object = None
    """The value that ``--json`` prints."""


class Subcommand(Value):
    """One command."""

    name: str
    group: str
    """The heading under which the help lists it; empty for one that people do not call."""

    summary: str
    """One line for the help."""

    declare: Callable[[argparse.ArgumentParser], None]
    """Adds the arguments of the command to its parser."""

    run: Callable[[argparse.Namespace, Say], Result]
    failure: ExitStatus = ExitStatus.FAILED
    """The exit status after one of our errors, unless the error has its own."""
