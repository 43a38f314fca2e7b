"""What is held against a running system one by one: each look raises an error that says what is wrong, or returns."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_nixproc.checks.api import Finding, errors_of
from pytest_nixproc.deployment.departure import lives
from pytest_nixproc.deployment.planner import Load
from pytest_nixproc.deployment.system import System
from pytest_nixproc.errors import ConflictError, DeploymentError


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
    before = lives(system.statuses(), system.machine)
    system.upgrade(load)
    after = lives(system.statuses(), system.machine)
    restarted = [name for name in before if after.get(name) != before[name]]
    if restarted:
        brief = f"an upgrade to the same model has restarted {', '.join(restarted)}"
        remedy = "let the model depend on nothing but its parameters: no random values, no times"
        raise DeploymentError(brief, remedy=remedy)


def restart_alone(system: System, name: str) -> None:
    """Stop an instance, and start it again: nothing is left of it meanwhile, and no other is disturbed.

    Raises :class:`~pytest_nixproc.errors.ConflictError` for findings, warnings too, and what
    :meth:`~.System.restart_alone` raises.
    """
    have_no_findings(system.restart_alone(name))
