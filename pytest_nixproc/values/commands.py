"""Commands, and how they ended, as values and in words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final

from pytest_nixproc.values.value import Value


class Command(Value):
    """A program and its arguments, as a process receives them."""

    program: str
    args: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """The program followed by its arguments."""
        return (self.program, *self.args)


AnyCommand = str | Sequence[str]
"""A command: shell text, or a program's name and its arguments."""


TEXT: Final = "NIXPROC_TEXT"
RUN_TEXT: Final = f'eval "unset {TEXT}; ${TEXT}"'
"""Runs shell text of a model that an environment variable holds: only its user and root can read that."""

OUTPUT_TAIL = 2000
"""How many characters of a failed command's output an error shows."""


class Spawn(Value):
    """A command to start."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """The whole environment of the process."""

    output: str | None = None
    """File that output and errors are appended to; None to drop them."""

    is_forked: bool = False
    """Whether it runs a Python module (``-m``) that it can be forked with from a template, which has it imported."""


def text_of(command: AnyCommand) -> str:
    """Return a command as a user would type it."""
    return command if isinstance(command, str) else shlex.join(command)


def describe_failure(command: AnyCommand, status: int | None) -> str:
    """Return in words how a command ended: ``ended with status 3: ls /nowhere``."""
    text = text_of(command)
    if status is None:
        return f"was killed at its time limit: {text}"
    return f"{describe_status(status)}: {text}"


def describe_status(status: int) -> str:
    """Return an exit status in words; it is minus a signal's number for a killed process."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
