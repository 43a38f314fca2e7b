"""The units of a manager: the files and links generated for an instance, and the status that the manager reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Literal

from pytest_nixproc.values.state_files import StateDirectory, StateFile
from pytest_nixproc.values.value import Value

Mode = Literal["foreground", "daemon"]


SCRIPT: Final = 0o700
"""The mode of a script that the manager runs, or has a shell run."""


class File(Value):
    """A generated file, or a part of one.

    It may hold secrets, as the environment of processes does. So it is for the manager alone, which is who deploys,
    unless ``mode`` and ``group`` say otherwise.

    Parts of the same path are joined: those of the system as a whole, then those of the units in the model's order.
    """

    path: str
    """Path relative to the configuration's directory."""

    content: str
    mode: int = 0o600
    group: str = ""
    """Name of the file's group; empty to leave it as it is."""


def joined(parts: Iterable[File]) -> list[File]:
    """Return whole files, joined from their parts."""
    contents: dict[File, list[str]] = {}
    for part in parts:
        contents.setdefault(replace(part, content=""), []).append(part.content)
    return [replace(file, content="".join(texts)) for file, texts in contents.items()]


class Link(Value):
    """A generated symbolic link; path and target are relative."""

    path: str
    target: str


class Unit(Value):
    """One instance as a manager knows it."""

    name: str
    """Name of the instance under its manager."""

    mode: Mode
    log_file: str
    """Path of the log file, or the command that shows the log where the manager keeps logs itself.

    Such a manager overrides :meth:`Driver.log`.
    """

    pid_file: str | None
    """PID file by which the running process is found, and which exists while it runs; None if it is found otherwise."""

    files: tuple[File, ...]
    links: tuple[Link, ...] = ()
    key: str = ""
    """Name of the instance in the model."""

    program: str = ""
    """Path of the program on the machine; empty where an override has another, or an image brings it."""

    restarts: bool = False
    """Whether its manager starts the program again whenever it has ended, because an override says so."""

    stop_signal: str = "TERM"
    """Signal, without ``SIG``, that asks its program to stop, for managers whose files do not say it."""

    reload_signal: str = "HUP"
    """Signal, likewise, that asks its program to read its configuration again."""

    state_directories: tuple[StateDirectory, ...] = ()
    """Directories that its program finds in the state; an owner is named where it is not who deploys."""

    state_files: tuple[StateFile, ...] = ()
    """Files that its program finds in the state, likewise."""


class Status(Value):
    """The state of one unit, as its manager reports it."""

    running: bool
    has_ended: bool = False
    """Whether the unit has ended; one that neither runs nor has ended was not started, or has only just been."""

    pid: int | None = None
    exit_status: int | None = None
    """Exit status, minus a signal's number for a killed process; None where the manager cannot know it."""

    text: str = ""
    """The state in words."""
