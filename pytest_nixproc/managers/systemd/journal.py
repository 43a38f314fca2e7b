"""The journal, for units whose overrides send their output there."""

from __future__ import annotations

from typing import Final

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.systemd.commands import ASK_SECONDS
from pytest_nixproc.managers.systemd.generator import journal_command, unit_name
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

JOURNAL_SOCKET: Final = "/run/systemd/journal/stdout"


class UnitJournal:
    """The journal of the machine, asked about the units of a deployment."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def content(self, unit: Unit) -> bytes:
        """Return the journal of a unit's processes, once it holds everything that they have written."""
        deadline = self.machine.deadline(ASK_SECONDS)
        name, *words = journal_command(unit_name(self.target, unit.name))
        path = self.machine.files.which(name) or name
        environment = {"PATH": self.machine.facts.path_variable, "LC_ALL": "C.UTF-8", **self.target.tags}
        # An ordinary user may not ask for it, and sees a moment later what is written.
        self.machine.processes.capture(Spawn((path, "--sync"), environment), deadline)
        return self.machine.processes.capture(Spawn((path, *words), environment), deadline)[1].encode()
