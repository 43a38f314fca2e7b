"""The present run of each instance's program, and the test whether an instance is ready."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_nixproc._system.instance import RunningInstance
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.values.units import Status
from pytest_nixproc.values.value import Value


class InstanceRun(Value):
    """One run of an instance's program."""

    pid: int
    """The main process."""

    identity: str
    """Text that tells the process from a later one with the same pid."""


def instance_runs(statuses: Mapping[str, Status], machine: Machine) -> dict[str, InstanceRun]:
    """Return the runs of all instances that run now."""
    pids = {name: status.pid for name, status in statuses.items() if status.running and status.pid}
    return {name: InstanceRun(pid, machine.processes.identity(pid)) for name, pid in pids.items()}


def be_ready(instance: RunningInstance) -> None:
    """Raise :class:`~pytest_nixproc.errors.DeploymentError` unless an instance runs and its condition holds."""
    status = instance.status
    if not status.running:
        raise DeploymentError(f"{instance.name} does not run: {status.text}")
    instance.wait_ready()
