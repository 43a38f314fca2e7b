"""The programs of instances: what the kernel does not execute is refused alike under every manager."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

from pytest_nixproc._deployment.context import DeploymentContext
from pytest_nixproc.errors import StartError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.values.units import Unit

WRITING_SECONDS: Final = 2.0
SCRIPTS: Final = "begin a script with #!/bin/sh, or give its interpreter as the program, and the script as an argument"


def refuse_programs(context: DeploymentContext, names: Iterable[str], *, have_started: bool = False) -> None:
    """Raise :class:`~pytest_nixproc.errors.StartError` for an instance whose program the kernel does not execute.

    Before the start, ``initialize`` may yet make one; once that has run, a program may have removed itself. A program
    that several of the instances have is looked at once.
    """
    problem_of = cache(context.machine.files.execution_problem)
    for name in names:
        program, initialize = context.units[name].program, context.model[name].pkg.initialize
        is_looked_at = program and (initialize or not have_started)
        may_be_made = bool(initialize) and not have_started and is_own(program, context)
        problem = problem_of(program) if is_looked_at and not may_be_made else ""
        if not problem or (initialize and not context.machine.files.exists(program)):
            continue
        if have_started:
            problem = lasting_problem(program, context.machine)
        if problem:
            raise StartError(f"{name} cannot be started: {problem}", remedy=SCRIPTS if "#!" in problem else "")


def lasting_problem(program: str, machine: Machine) -> str:
    """Return why a program cannot be executed, if that is still so after a while; else an empty text.

    What has only to live for a moment counts as ready while its ``initialize`` may still be writing the program.
    """
    problem = ""

    def is_executable() -> bool:
        nonlocal problem
        problem = machine.files.execution_problem(program)
        return not problem

    machine.deadline(WRITING_SECONDS).until(is_executable)
    return problem


def program_problem(unit: Unit, machine: Machine) -> str:
    """Return why a unit's program cannot be executed, as far as it is known which one that is; else an empty text."""
    return machine.files.execution_problem(unit.program) if unit.program else ""


def is_own(program: str, context: DeploymentContext) -> bool:
    """Tell whether a program lies in the deployment's own directories."""
    target = context.driver.target
    return target.state.contains(program) or program.startswith(f"{target.directory}/")
