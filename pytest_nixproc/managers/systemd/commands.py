"""Commands of a deployment: systemctl for its systemd, and shell text for the files around that."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.systemd.scope import RECORD, SystemdScope
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn, describe_failure
from pytest_nixproc.values.target import Target

ASK_SECONDS: Final = 10.0


class Commands:
    """The commands of a deployment: systemctl in its scope, and shell text."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    @cached_property
    def scope(self) -> SystemdScope:
        """The systemd that runs the deployment's units, as recorded in the deployment's directory."""
        scope = SystemdScope.recall(self.machine, self.target)
        if scope is None:
            raise MachineError(f"no systemd is known: {self.target.directory}/{RECORD} is missing")
        return scope

    def ask(self, deadline: Deadline, *words: str) -> tuple[int | None, str]:
        """Run systemctl; return its status and output."""
        return self.machine.processes.capture(self.scope.command(self.machine, self.target, *words), deadline)

    def succeed(self, deadline: Deadline, *words: str) -> str:
        """Run systemctl, which must succeed."""
        command = self.scope.command(self.machine, self.target, *words)
        status, output = self.machine.processes.capture(command, deadline)
        if status != 0:
            raise MachineError(describe_failure(command.argv, status), details=output[-OUTPUT_TAIL:])
        return output

    def shell(self, deadline: Deadline, text: str, *words: str) -> str:
        """Run shell text with arguments; return its output, even if it fails."""
        argv = (self.machine.facts.shell, "-c", text, "sh", *words)
        environment = {"PATH": self.machine.facts.path_variable, **self.target.tags}
        return self.machine.processes.capture(Spawn(argv, environment), deadline)[1]
