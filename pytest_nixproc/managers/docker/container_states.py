"""The states of containers: the engine's facts about them, and their processes on the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import descendants, innermost_pid
from pytest_nixproc.managers.api import content_for
from pytest_nixproc.managers.docker.connection import Connection
from pytest_nixproc.managers.docker.container import ContainerSpec, is_up, published, read_container
from pytest_nixproc.managers.docker.generator import container_name
from pytest_nixproc.managers.docker.labels import is_of
from pytest_nixproc.values.pid_files import pid_in
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

NOTICE_SECONDS: Final = 2
LISTENING: Final = "0A"
"""State of a listening socket in /proc/net/tcp (proc(5), linux/tcp_states.h)."""


class ContainerStates:
    """The known states of a deployment's containers; the engine is asked again when they may have changed."""

    def __init__(self, machine: Machine, target: Target, connection: Connection) -> None:
        self.machine = machine
        self.target = target
        self.connection = connection
        self.running: dict[str, Mapping[str, Any]] = {}
        """The engine's facts about containers that ran then; they hold for as long as the processes live."""

        self._mains: dict[str, tuple[int, int]] = {}
        """First processes, and their programs as last seen: what is the eldest child later may be an orphan."""

        self._containers: dict[str, ContainerSpec] = {}

    def container(self, unit: Unit) -> ContainerSpec:
        """Return a container as its files describe it."""
        if unit.name not in self._containers:
            self._containers[unit.name] = read_container(self.machine, self.target, unit)
        return self._containers[unit.name]

    def forget(self, unit: Unit) -> None:
        """Forget everything about a unit that is gone or has changed."""
        for known in (self._containers, self.running, self._mains):
            known.pop(unit.name, None)

    def facts(self, unit: Unit) -> Mapping[str, Any] | None:
        """Return the engine's facts about a container; if its process has ended, first wait until the engine knows.

        None where there is no such container.
        """
        known = self.running.get(unit.name)
        if known is not None and not self.machine.processes.ended([known["State"]["Pid"]]):
            return known
        facts = self._inspect(unit)
        if facts and is_up(facts["State"]) and self.machine.processes.ended([facts["State"]["Pid"]]):
            self._await_end(unit)
            facts = self._inspect(unit)
        self.running.pop(unit.name, None)
        if facts and is_up(facts["State"]):
            self.running[unit.name] = facts
        return facts

    def first_process(self, unit: Unit) -> int | None:
        """Return the first process of a container, if it runs."""
        facts = self.facts(unit)
        return facts["State"]["Pid"] if facts and is_up(facts["State"]) else None

    def _inspect(self, unit: Unit) -> Mapping[str, Any] | None:
        from docker.errors import NotFound

        with self.connection.asking() as client, suppress(NotFound):
            facts: Mapping[str, Any] = client.api.inspect_container(container_name(self.target, unit.name))
            return facts if self.is_mine(facts) else None
        return None

    def is_mine(self, facts: Mapping[str, Any]) -> bool:
        """Tell whether a container with a name of ours belongs to this deployment."""
        return is_of(facts["Config"]["Labels"], self.target)

    def _await_end(self, unit: Unit) -> None:
        """Wait until the engine sees that a container has ended, which it does in no time."""
        from docker.errors import NotFound
        from requests.exceptions import RequestException

        with self.connection.asking() as client, suppress(NotFound, RequestException):
            client.api.wait(container_name(self.target, unit.name), timeout=NOTICE_SECONDS)

    def await_end_of_dead(self, unit: Unit) -> None:
        """Wait for the end of a container whose program has ended."""
        main = self.main_process(unit)
        if main is not None and self.machine.processes.ended([main]):
            self.forget_main(unit)
            self._await_end(unit)

    def main_process(self, unit: Unit) -> int | None:
        """Return the program of a container that runs, if it can be told already."""
        first = self.first_process(unit)
        if first is None:
            return None
        known, main = self._mains.get(unit.name, (0, 0))
        # The engine may have started the container again, and its program is another one then.
        if known == first:
            return main
        found = self._main_pid(unit, first)
        if found is not None:
            self._mains[unit.name] = first, found
        return found

    def forget_main(self, unit: Unit) -> None:
        """Forget which process is the program of a container."""
        self._mains.pop(unit.name, None)

    def _main_pid(self, unit: Unit, first: int) -> int | None:
        """Return the program behind the first process of a container, which is ours or the engine's init."""
        if self.container(unit).is_conventional:
            return first
        if unit.pid_file is not None:
            return self.process_named(unit, content_for(unit, self.machine, self.target))
        return next(iter(self._children(first)), None)

    def _children(self, pid: int) -> list[int]:
        """Return the children of a process, the eldest first (proc(5), /proc/PID/task/TID/children)."""
        return [int(child) for child in (self.machine.files.read(f"/proc/{pid}/task/{pid}/children") or b"").split()]

    def process_named(self, unit: Unit, content: bytes) -> int | None:
        """Return the process that a PID file names by its pid in the container's own PID namespace."""
        number = pid_in(content)
        first = self.first_process(unit) if number else None
        if first is None:
            return None
        candidates = [first, *self._children(first), *descendants([first], self.machine.processes.parents())]
        statuses = ((pid, self.machine.files.read(f"/proc/{pid}/status") or b"") for pid in candidates)
        return next((pid for pid, status in statuses if innermost_pid(status) == number), None)

    def members(self, unit: Unit) -> Sequence[int]:
        """Return everything in a container but its first process, which is ours or the engine's init."""
        first = self.first_process(unit)
        return descendants([first], self.machine.processes.parents()) if first else ()

    def forwarded(self, name: str) -> dict[int, int]:
        """Return the machine's ports that are forwarded to a running container, each with the container's port."""
        container, facts = self._containers.get(name), self.running.get(name)
        if facts and container and container.shares_network and self.connection.is_rootless:
            is_elsewhere = not self.machine.network.is_shared_with(facts["State"]["Pid"])
            return {port: port for port in container.ports} if is_elsewhere else {}
        return published(facts)

    def listening(self, pid: int) -> set[int]:
        """Return the ports that are listened on in a process's network."""
        tables = [self.machine.files.read(f"/proc/{pid}/net/{name}") or b"" for name in ("tcp", "tcp6")]
        rows = [row.split() for table in tables for row in table.decode().splitlines()[1:]]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENING}
