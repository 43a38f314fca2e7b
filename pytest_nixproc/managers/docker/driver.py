"""The driver of docker: it creates, starts, stops and inspects containers, several at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Final

from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.managers.docker.belongings import Belongings
from pytest_nixproc.managers.docker.connection import STARTERS, STOPPERS, Connection
from pytest_nixproc.managers.docker.container import describe_end, exit_status_of, is_up
from pytest_nixproc.managers.docker.container_states import ContainerStates
from pytest_nixproc.managers.docker.containers import Containers
from pytest_nixproc.managers.docker.generator import container_name
from pytest_nixproc.values.machine import Listener
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

ENGINE: Final = "docker-engine"
"""The generated directory's record of the engine, for whoever takes the deployment down."""


class DockerDriver(Driver):
    """The driver that asks the engine for everything; it finds containers again by their names and labels."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._connection = Connection(machine, f"{target.directory}/{ENGINE}")
        self._states = ContainerStates(machine, target, self._connection)
        self._containers = Containers(machine, target, self._states)
        self._belongings = Belongings(machine, target, self._containers)

    def open(self, deadline: Deadline) -> None:  # noqa: ARG002 - the clients have limits of their own
        """Connect to the engine, and remember which it was."""
        self._connection.open()

    def close(self, deadline: Deadline) -> None:
        """Remove the deployment's containers and images, whoever has made them, until the engine shows none.

        An engine finishes what it was asked for, also when the client has died: one that somebody else has used for
        this deployment is looked at for a while longer.
        """
        if self._connection.is_recorded:
            self._belongings.remove_all(deadline)
        self._connection.close()

    def remains(self) -> Sequence[str]:
        """Return the deployment's containers, images and volumes, and close the connection to the engine."""
        with closing(self._connection):
            return self._belongings.names()

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Remove the containers of units that are gone or have changed; images may have other files now."""
        self._containers.images.forget()
        changed = {unit.name: unit for unit in old if unit not in new}
        self._connection.side_by_side(STARTERS, self._containers.discard, changed)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:  # noqa: ARG002 - it does not wait
        """Create the containers that do not exist yet, and start containers, some at a time."""
        return self._connection.side_by_side(STARTERS, self._containers.start, {unit.name: unit for unit in units})

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop containers, and wait for their ends; the engine kills those that exceed their limit."""
        here = self._containers.here()
        mine = {unit.name: unit for unit in units if container_name(self.target, unit.name) in here}
        stop = partial(self._containers.stop, deadline=deadline)
        problems = self._connection.side_by_side(STOPPERS, stop, mine)
        if problems:
            raise CommandFailed("containers were not stopped", details="\n".join(problems.values()))

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send the signal that asks to read the configuration again."""
        from docker.errors import APIError

        try:
            with self._connection.asking() as client:
                client.api.kill(container_name(self.target, unit.name), f"SIG{unit.reload_signal}")
        except APIError as error:
            raise CommandFailed(f"{unit.name}: {error.explanation}") from error

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Return the statuses of units; the engine is asked about containers that are not known to run."""
        return {unit.name: self._status(unit) for unit in units}

    def _status(self, unit: Unit) -> Status:
        self._states.await_end_of_dead(unit)
        facts = self._states.facts(unit)
        if facts is None:
            return Status(running=False, text="it has no container")
        state = facts["State"]
        if is_up(state):
            # The container is up before its first process has started the program.
            pid = self._states.main_process(unit)
            text = state["Status"] if pid else "its container is up, and its program has not been started"
            return Status(running=pid is not None, pid=pid, text=text)
        has_ended = state["Status"] in ("exited", "dead")
        return Status(running=False, has_ended=has_ended, exit_status=exit_status_of(state), text=describe_end(facts))

    def process_named(self, unit: Unit, content: bytes) -> int | None:
        """Return the process that a PID file names by its number in the container's PID namespace."""
        return self._states.process_named(unit, content)

    def members(self, unit: Unit) -> Sequence[int]:
        """Return everything in a container but its first process."""
        return self._states.members(unit)

    def unmet(self, unit: Unit) -> str:
        """Return why a container is not ready yet: its published ports accept connections before it listens."""
        first = self._states.first_process(unit)
        for outer, inner in self._states.forwarded(unit.name).items():
            if first and inner not in self._states.listening(first):
                return f"port {inner} of its container, published as {outer}, is not listened on"
        return super().unmet(unit)

    def exit_status(self, unit: Unit, pid: int) -> int | None:  # noqa: ARG002 - a container has one main process
        """Return how a container has ended."""
        return self._status(unit).exit_status

    def listeners(self, statuses: Mapping[str, Status]) -> Sequence[Listener]:
        """Return the ports that the engine forwards to containers with a network of their own."""
        return [
            Listener("127.0.0.1", outer, status.pid)
            for name, status in statuses.items()
            for outer, inner in self._states.forwarded(name).items()
            if status.pid and inner in self._states.listening(status.pid)
        ]

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        return len(self._containers.log(unit))

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return the output and error of a container, from byte ``start`` on."""
        return self._containers.log(unit)[start:].decode(errors="replace")
