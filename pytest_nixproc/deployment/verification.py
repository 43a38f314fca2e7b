"""What is held against a running system one by one: each look raises an error that says what is wrong, or returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_nixproc.checks.api import Finding, errors_of
from pytest_nixproc.deployment.planner import Load
from pytest_nixproc.deployment.stopping import all_ended
from pytest_nixproc.deployment.system import System
from pytest_nixproc.errors import ConflictError, DeploymentError
from pytest_nixproc.model.system import ProcessesModel

LEFT_SECONDS: Final = 1.0
"""How long processes of a stopped instance may still take: whoever ended last may not have been waited for yet."""


@dataclass(frozen=True)
class Life:
    """One run of an instance: its main process, and what tells that from a later one with its pid."""

    pid: int
    identity: str


def lives(system: System) -> dict[str, Life]:
    """Return the runs of all instances that run now."""
    pids = {name: status.pid for name, status in system.statuses().items() if status.running and status.pid}
    return {name: Life(pid, system.machine.identity(pid)) for name, pid in pids.items()}


def dependants(model: ProcessesModel, name: str) -> set[str]:
    """Return the instances that depend on one, directly or through others."""
    found: set[str] = set()
    below = {name}
    while below:
        below = {key for key, needed in model.dependencies.items() if below & set(needed)} - found
        found |= below
    return found


def be_ready(system: System, name: str) -> None:
    """Raise :class:`~pytest_nixproc.errors.DeploymentError` unless an instance runs and its condition holds."""
    status = system[name].status
    if not status.running:
        raise DeploymentError(f"{name} does not run: {status.text}")
    system[name].wait_ready()


def have_no_findings(findings: Iterable[Finding]) -> None:
    """Raise :class:`~pytest_nixproc.errors.ConflictError` for findings, warnings too."""
    if wrong := list(findings):
        raise ConflictError("this does not hold", wrong)


def have_no_errors(system: System) -> None:
    """Raise :class:`~pytest_nixproc.errors.ConflictError` for errors that the rules find, about any instance."""
    if errors := errors_of(system.inspect()):
        raise ConflictError("the running instances are in each other's way", errors)


def upgrade_to_itself(system: System, load: Load) -> None:
    """Deploy the same model anew: it has to be the same, so nothing is restarted.

    A model that differs each time that it is loaded restarts everything at each upgrade.
    """
    before = lives(system)
    system.upgrade(load)
    after = lives(system)
    restarted = [name for name in before if after.get(name) != before[name]]
    if restarted:
        brief = f"an upgrade to the same model has restarted {', '.join(restarted)}"
        remedy = "let the model depend on nothing but its parameters: no random values, no times"
        raise DeploymentError(brief, remedy=remedy)


def restart_alone(system: System, name: str) -> None:
    """Stop an instance, and start it again: nothing is left of it meanwhile, and no other is disturbed.

    Others keep their processes, and stay ready; those that depend on it have to be ready only when it is back. Raises
    :class:`~pytest_nixproc.errors.DeploymentError`, and what :meth:`~.RunningInstance.stop` and ``start`` raise.
    """
    be_ready(system, name)
    before = lives(system)
    del before[name]
    unaffected = {other: life for other, life in before.items() if other not in dependants(system.model, name)}
    pids = system[name].pids
    system[name].stop()
    try:
        problems = [*left_of(system, name, pids), *disturbed(system, unaffected, f"while {name} was stopped")]
    finally:
        system[name].start()
    problems += disturbed(system, unaffected, f"when {name} was started again")
    problems += not_ready(system, before, f"when {name} was started again")
    if problems:
        raise DeploymentError(f"{name} cannot be stopped and started alone", details="\n".join(dict.fromkeys(problems)))


def left_of(system: System, name: str, pids: Sequence[int]) -> list[str]:
    """Return what is left of an instance that has been stopped."""
    machine = system.machine
    all_ended(machine, pids, machine.deadline(LEFT_SECONDS))
    alive = set(pids) - machine.ended(pids)
    ports = system.model[name].declared_ports.values()
    left = [f"process {pid} still runs when {name} is stopped: {machine.describe(pid)}" for pid in sorted(alive)]
    held = [f"TCP port {port} of {name} is held when it is stopped" for port in ports if not machine.port_is_free(port)]
    return left + held


def disturbed(system: System, before: Mapping[str, Life], when: str) -> list[str]:
    """Return which runs of instances have ended, and which of those that run are not ready."""
    now = lives(system)
    problems = [f"{name} (pid {life.pid}) has ended {when}" for name, life in before.items() if now.get(name) != life]
    return problems + not_ready(system, [name for name in before if now.get(name) == before[name]], when)


def not_ready(system: System, names: Iterable[str], when: str) -> list[str]:
    """Return which instances are not ready, and why."""
    problems = []
    for name in names:
        try:
            be_ready(system, name)
        except DeploymentError as error:
            problems.append(f"{name} is not ready {when}: {error.brief}")
    return problems
