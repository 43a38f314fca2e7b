"""The programs of instances: what the kernel does not execute is refused alike under every manager."""

from __future__ import annotations

from pytest_nixproc._deployment.context import DeploymentContext
from pytest_nixproc.errors import StartError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.values.units import Unit


def refuse_program(context: DeploymentContext, name: str, *, has_started: bool = False) -> None:
    """Raise :class:`~pytest_nixproc.errors.StartError` for an instance whose program the kernel does not execute.

    Before the start, ``initialize`` may yet make one; once that has run, a program may have removed itself.
    """
    unit, initialize = context.units[name], context.model[name].pkg.initialize
    problem = "" if has_started and not initialize else program_problem(unit, context.machine)
    may_be_made = bool(initialize) and not has_started and is_own(unit.program, context)
    if problem and not may_be_made and (context.machine.files.exists(unit.program) or not initialize):
        remedy = "begin a script with #!/bin/sh, or give its interpreter as the program, and the script as an argument"
        raise StartError(f"{name} cannot be started: {problem}", remedy=remedy if "#!" in problem else "")


def program_problem(unit: Unit, machine: Machine) -> str:
    """Return why a unit's program cannot be executed, as far as it is known which one that is; else an empty text."""
    return machine.files.execution_problem(unit.program) if unit.program else ""


def is_own(program: str, context: DeploymentContext) -> bool:
    """Tell whether a program lies in the deployment's own directories."""
    target = context.driver.target
    return target.state.contains(program) or program.startswith(f"{target.directory}/")
