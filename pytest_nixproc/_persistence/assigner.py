"""Ids and ports for one deployment, leased machine-wide where they are ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_nixproc._persistence.leases import Leases, PortLeases
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.ids import Assignments, Ids, assign, is_port_pool
from pytest_nixproc.model.system import ProcessesModel


class Assigner:
    """The ids and ports of one deployment, assigned and remembered for as long as it lives."""

    def __init__(self, leases: Leases, machine: Machine, root: str) -> None:
        self.leases = leases
        self.machine = machine
        self.root = root
        self.owner = ProcessIdentity.current()
        self.assignments = Assignments()
        self.named_ports: dict[str, int] = {}
        self.spare_ports: list[int] = []
        """Leased for the names to come, as many as there are names: each look at the leases of a machine costs."""

    def free_port(self, name: str) -> int:
        """Lease a port under a name; the same name has the same port again."""
        if name not in self.named_ports:
            self.named_ports[name] = self._next_port()
        return self.named_ports[name]

    def _next_port(self) -> int:
        """Return a leased port on which a server could listen now."""
        is_free = self.machine.network.port_is_free
        while self.spare_ports:
            if is_free(port := self.spare_ports.pop(0)):
                return port
        with self.leases.locked() as ports:
            port, *self.spare_ports = ports.lease_next(self.root, self.owner, is_free, 1 + len(self.named_ports))
        return port

    def assign(self, model: ProcessesModel) -> Ids:
        """Assign the ids that a model requires; ids that its instances have already, or had before, are retained.

        But a recorded port is of no use that another deployment has or somebody listens on: there is a new one then.
        Raises :class:`~pytest_nixproc.errors.NixprocError` when a pool is exhausted.
        """
        if not self.spare_ports and not any(model.id_requests.values()):
            old = joined(self.assignments, model.recorded_ids, lambda _: False)
            self.assignments = assign(model.pools, {}, old, lambda *_: False)
            return Ids(self.assignments.ids)
        with self.leases.locked() as ports:
            ports.give_back(self.spare_ports)
            self.spare_ports = []
            named = set(self.named_ports.values())

            def is_usable(number: int) -> bool:
                return number not in named and not self._is_taken(ports, number)

            old = joined(self.assignments, model.recorded_ids, is_usable)
            kept = {number for numbers in old.ids.values() for number in numbers.values()}

            def is_taken(pool: str, number: int) -> bool:
                if not is_port_pool(pool):
                    return False
                return number in named or (number not in kept and self._is_taken(ports, number))

            self.assignments = assign(model.pools, model.id_requests, old, is_taken)
            leased = {pool: numbers for pool, numbers in self.assignments.ids.items() if is_port_pool(pool)}
            ports.lease(self.root, self.owner, (port for numbers in leased.values() for port in numbers.values()))
        return Ids(self.assignments.ids)

    def _is_taken(self, ports: PortLeases, number: int) -> bool:
        return ports.is_leased(number, but_for=self.root) or not self.machine.network.port_is_free(number)

    def facts(self) -> dict[str, Any]:
        """Return everything that was assigned, for others who use the same deployment."""
        return {"ids": self.assignments.ids, "last": self.assignments.last, "ports": self.named_ports}

    def adopt(self, facts: Mapping[str, Any]) -> None:
        """Take over the ids and ports that another process has assigned."""
        self.assignments = Assignments(facts["ids"], facts["last"])
        self.named_ports = dict(facts["ports"])

    def release(self) -> None:
        """Remove the leases of the deployment and its ports."""
        self.leases.remove(self.root)


def joined(own: Assignments, recorded: Assignments, is_usable: Callable[[int], bool]) -> Assignments:
    """Return a deployment's own assignments, and the recorded ones that are still available beside them."""
    ids: dict[str, dict[str, int]] = {}
    for pool in {**recorded.ids, **own.ids}:
        mine = own.ids.get(pool, {})
        others = recorded.ids.get(pool, {}).items()
        usable = {
            name: number
            for name, number in others
            if number not in mine.values() and (not is_port_pool(pool) or is_usable(number))
        }
        ids[pool] = {**usable, **mine}
    return Assignments(ids, {**recorded.last, **own.last})
