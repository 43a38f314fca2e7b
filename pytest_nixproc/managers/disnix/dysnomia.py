"""The commands that activate and deactivate components: Dysnomia's, or without Dysnomia what its module would do."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.disnix.generator import MODULE_SETTINGS, PLAIN, directory_of, settings_of
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

ACTIVATE: Final = '. "$1" && exec "$process"'
"""Runs the process of a component, as its description says."""


class Dysnomia:
    """The commands that activate and deactivate the components of a deployment."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    @cached_property
    def program(self) -> str:
        """The path of Dysnomia; empty where it is not installed, or its scripts would split our paths."""
        path = self.machine.files.which("dysnomia")
        told = (path, self.target.directory, self._marks)
        return path if all(map(PLAIN.fullmatch, told)) else ""

    @property
    def _marks(self) -> str:
        """The directory in which Dysnomia remembers active components: by default, all of a machine share one."""
        return f"{self.target.state.lib_dir}/dysnomia"

    def activation(self, unit: Unit) -> Spawn:
        """Return the command that activates a component, with Dysnomia or without."""
        if self.program:
            return self.operation("activate", unit)
        settings = f"{self.target.directory}/{settings_of(unit.name)}"
        return Spawn((self.machine.facts.shell, "-c", ACTIVATE, "sh", settings), self._environment, unit.log_file)

    def operation(self, operation: str, unit: Unit) -> Spawn:
        """Return the command that has Dysnomia activate or deactivate a component."""
        component = f"{self.target.directory}/{directory_of(unit.name)}"
        settings = f"{self.target.directory}/{MODULE_SETTINGS}"
        words = ("--operation", operation, "--component", component, "--container", settings)
        environment = {**self._environment, "DYSNOMIA_STATEDIR": self._marks}
        return Spawn((self.program, *words), environment, unit.log_file)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": self.machine.facts.path_variable, **self.target.tags}
