"""The reasons to refuse a deployment: conflicts, and ports that somebody else holds."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_nixproc._inspection.observation import who_holds
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc.errors import ConflictError, DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.findings import errors_of


def refuse_conflicts(plan: Plan) -> None:
    """Raise for values that the manager cannot express, or conflicts that the rules about models find."""
    for refusal in plan.refusals.values():
        raise refusal
    if errors := errors_of(plan.findings):
        raise ConflictError("the instances of this model conflict", errors)


def refuse_held_ports(machine: Machine, model: ProcessesModel, names: Iterable[str]) -> None:
    """Raise for declared ports that somebody holds already, and say who."""
    for name in names:
        for place, port in model[name].declared_ports.items():
            if not machine.network.port_is_free(port):
                brief = f"{name} cannot have TCP port {port} (processes.{name}.{place}): {holder(machine, port)}"
                raise DeploymentError(brief, remedy="end that process, or choose another port")


def held_ports(machine: Machine, model: ProcessesModel) -> list[str]:
    """Return the declared ports that are not free again, with who holds them."""
    return [
        f"TCP port {port} of {name} is still held: {holder(machine, port)}"
        for name, instance in model.items()
        for port in instance.declared_ports.values()
        if not machine.network.port_is_free(port)
    ]


def holder(machine: Machine, port: int) -> str:
    """Return who holds a port, in words."""
    everybody = machine.network.listeners(wanted={port})
    pids = [listener.pid for listener in everybody if (listener.protocol, listener.port) == ("tcp", port)]
    return " and ".join(dict.fromkeys(who_holds(machine, pid) for pid in pids)) or "it is in use"
