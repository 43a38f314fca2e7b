"""The live state of s6-rc: the services that are up, and the commands that change it."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Final

from pytest_nixproc.errors import CommandFailed, MachineError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.s6_rc.generator import live_directory
from pytest_nixproc.managers.s6_rc.tools import Toolbox, milliseconds
from pytest_nixproc.values.commands import OUTPUT_TAIL, describe_status
from pytest_nixproc.values.target import Target

NOTICE_SECONDS: Final = 2.0
"""How long s6-supervise may take to notice the end of a process, and s6-rc that its time is over."""

NOT_ALL: Final = (0, 1, 2)
"""How s6-rc ends when it has tried: done, some transitions failed, or its time was over."""

SURVEY: Final = """\
live=$1 way=$2
shift 2
s6-rc -l "$live" -b -a list && echo && exec s6-rc -l "$live" -b "$way" listall "$@\""""
"""Prints the services that s6-rc counts as up, and all services that it would change together with some."""

CHANGE: Final = """\
cd -- "$1" || exit 111
shift
exec s6-rc "$@\""""
"""The socket by which s6-rc has oneshots run is the deepest of all: by a relative path, it is never too deep."""

TELL: Final = """\
cd -- "$1/servicedirs" || exit 1
limit=$2 what=$3
shift 3
for name; do s6-svc "$what" -T "$limit" -- "$name" & done
wait"""
"""Has s6-supervise start or stop services, side by side, and waits until it has."""

START: Final = "-uwu"
STOP: Final = "-dwD"

SCRIPTS: Final = """\
live=$1 way=$2
shift 2
for name; do s6-rc-db -l "$live" -b "$way" script "$name" | xargs -0 env & done
wait"""
"""Runs the command lines of oneshots, side by side; s6-rc-db prints their words, each with a NUL behind it."""


class LiveState:
    """The live state of a deployment, changed by s6-rc, or by s6-supervise without its knowledge."""

    def __init__(self, machine: Machine, target: Target, tools: Toolbox) -> None:
        self.machine = machine
        self.tools = tools
        self.directory = live_directory(target)

    def service_directory(self, name: str) -> str:
        """Return the directory of a longrun in the live state."""
        return f"{self.directory}/servicedirs/{name}"

    def is_supervised(self, name: str) -> bool:
        """Tell whether a service is a longrun."""
        return self.machine.files.exists(self.service_directory(name))

    def survey(self, deadline: Deadline, way: str, names: Sequence[str]) -> tuple[set[str], set[str]]:
        """Return the services that s6-rc counts as up, and all that a change of the given services would affect."""
        status, output = self.tools.shell(deadline, SURVEY, self.directory, way, *names)
        if status != 0:
            raise MachineError("s6-rc does not know its services", details=output[-OUTPUT_TAIL:].rstrip())
        first, _, second = ("\n" + output).partition("\n\n")
        return set(first.split()), set(second.split())

    def change(self, deadline: Deadline, way: str, names: Sequence[str]) -> str:
        """Have s6-rc change the state; return its message if it has not done everything, or an empty text."""
        limit = self.machine.deadline(deadline.remaining + NOTICE_SECONDS)
        place, live = posixpath.split(self.directory)
        words = ("-l", live, "-b", way, "-t", milliseconds(deadline), "change", *names)
        status, output = self.tools.shell(limit, CHANGE, place, *words)
        if status not in NOT_ALL:
            ending = "does not come to an end" if status is None else describe_status(status)
            raise CommandFailed(f"s6-rc {ending}", details=output[-OUTPUT_TAIL:].rstrip())
        return (output.rstrip() or f"s6-rc {describe_status(status)}") if status else ""

    def tell(self, what: str, names: Sequence[str], deadline: Deadline) -> None:
        """Start or stop services without s6-rc, and wait until that is done."""
        longruns = [name for name in names if self.is_supervised(name)]
        oneshots = [name for name in names if name not in longruns]
        limit = self.machine.deadline(deadline.remaining + NOTICE_SECONDS)
        if longruns:
            self.tools.shell(limit, TELL, self.directory, milliseconds(deadline), what, *longruns)
        if oneshots:
            self.tools.shell(limit, SCRIPTS, self.directory, what[:2], *oneshots)
