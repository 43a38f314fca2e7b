"""The reasons to refuse a deployment: conflicts, and ports that somebody else holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_nixproc._inspection.answers import is_at, who_holds
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc.errors import ConflictError, DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.instance import Instance
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
        for endpoint in held_endpoints(machine, model[name]):
            place = f"processes.{name}.{endpoint.value_path}"
            brief = f"{name} cannot have TCP port {endpoint.port} ({place}): {holder(machine, endpoint)}"
            raise DeploymentError(brief, remedy="end that process, or choose another port")


def held_ports(machine: Machine, model: ProcessesModel) -> list[str]:
    """Return the declared ports that are not free again, with who holds them."""
    return [
        f"TCP port {endpoint.port} of {name} is still held: {holder(machine, endpoint)}"
        for name, instance in model.items()
        for endpoint in held_endpoints(machine, instance)
    ]


def held_endpoints(machine: Machine, instance: Instance) -> Iterator[Endpoint]:
    """Yield the declared TCP ports that nobody could listen on now, each with the address that is meant."""
    for endpoint in instance.endpoints:
        is_free = machine.network.port_is_free(endpoint.port, endpoint.address or endpoint.wildcard)
        if endpoint.protocol == "tcp" and not is_free:
            yield endpoint


def holder(machine: Machine, endpoint: Endpoint) -> str:
    """Return who holds an endpoint, in words."""
    everybody = machine.network.listeners(wanted={endpoint.port})
    pids = [listener.pid for listener in everybody if is_at(listener, [endpoint])]
    return " and ".join(dict.fromkeys(who_holds(machine, pid) for pid in pids)) or "it is in use"
