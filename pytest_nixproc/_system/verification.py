"""The checks of a running system that are made one by one: each raises an error about a problem, or returns."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_nixproc._planning.planner import LoadModel
from pytest_nixproc._system.instance_runs import instance_runs
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import ConflictError, DeploymentError
from pytest_nixproc.values.findings import Finding


def have_no_findings(findings: Iterable[Finding]) -> None:
    """Raise :class:`~pytest_nixproc.errors.ConflictError` for findings, warnings too."""
    if wrong := list(findings):
        raise ConflictError("this does not hold", wrong)


def upgrade_to_itself(system: System, load: LoadModel) -> None:
    """Deploy the same model anew: it has to be the same, so nothing is restarted.

    A model that differs each time that it is loaded restarts everything at each upgrade.
    """
    before = instance_runs(system.statuses(), system.machine)
    system.upgrade(load)
    after = instance_runs(system.statuses(), system.machine)
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
