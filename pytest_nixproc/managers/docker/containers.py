"""The containers of a deployment: made, started, stopped and removed through the engine's API."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.docker.connection import MAKE_SECONDS
from pytest_nixproc.managers.docker.container import ContainerSpec
from pytest_nixproc.managers.docker.container_states import ContainerStates
from pytest_nixproc.managers.docker.generator import OPEN_FILES, container_name, label_of
from pytest_nixproc.managers.docker.images import Images
from pytest_nixproc.managers.docker.labels import is_of, owner_labels
from pytest_nixproc.managers.docker.mounts import SoftwareMounts
from pytest_nixproc.managers.docker.rootless import RootlessForwards
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docker import DockerClient
    from docker.types import Ulimit

FORWARDS: Final = "docker-forwards"
"""The generated directory's record of the ports that RootlessKit forwards, for whoever takes the deployment down."""


class Containers:
    """Containers, with the images, software and forwarded ports that they need."""

    def __init__(self, machine: Machine, target: Target, states: ContainerStates) -> None:
        self.machine = machine
        self.target = target
        self.states = states
        self.connection = states.connection
        self.images = Images(target, self.connection)
        self.mounts = SoftwareMounts(machine)
        self.forwards = RootlessForwards(machine, f"{target.directory}/{FORWARDS}")

    def here(self) -> dict[str, str]:
        """Return the ids of the deployment's containers, by name; they are found by their label, not by their names."""
        with self.connection.asking() as client:
            entries = client.api.containers(all=True, filters={"label": label_of(self.target)})
        # One that is being removed may have lost its name already.
        return {
            (entry["Names"] or [entry["Id"]])[0].removeprefix("/"): entry["Id"]
            for entry in entries
            if is_of(entry["Labels"], self.target)
        }

    def start(self, unit: Unit) -> None:
        """Start the container of a unit, and create it before, with its image, if there is none."""
        container = self.states.container(unit)
        self.images.make(container)
        with self.connection.asking(MAKE_SECONDS) as client:
            if not self._is_created(client, container):
                # Until the engine sees the end of a container whose program has ended, it would not start it again.
                self.states.await_end_of_dead(unit)
            client.api.start(container.name)
        self.states.forget_main(unit)
        if self.connection.is_rootless and container.shares_network and container.ports:
            first = self.states.first_process(unit)
            # The engine may have a network of its own, where nobody reaches the ports.
            if first and not self.machine.network.is_shared_with(first):
                self.forwards.open(first, container.ports)

    def _is_created(self, client: DockerClient, container: ContainerSpec) -> bool:
        """Create a container; return False where this deployment has created it before."""
        from docker.errors import APIError

        keywords = dict(container.keywords)
        keywords["labels"] = {**keywords.get("labels", {}), **owner_labels(self.target)}
        keywords["mounts"] = [*keywords.get("mounts", ()), *self.mounts.of_container(container)]
        if self.connection.is_rootless and not container.is_conventional:
            # The engine's root is who has started it, the only one that the state directory is open to.
            keywords["user"] = "0:0"
            keywords["ulimits"] = self._settable(keywords.get("ulimits", ()))
        try:
            client.containers.create(container.tag, list(container.command) or None, name=container.name, **keywords)
        except APIError:
            # Engines differ in how they word that the name is taken.
            if not self._is_there(client, container.name):
                raise
            return False
        return True

    def _settable(self, limits: Iterable[Ulimit]) -> list[Ulimit]:
        """Return the limits that a rootless engine is told: none of ours, which may be above what it has itself."""
        from docker.types import Ulimit

        facts = self.machine.facts
        own = Ulimit(name=OPEN_FILES, soft=facts.open_files, hard=facts.most_open_files)
        return [limit for limit in limits if limit != own]

    def _is_there(self, client: DockerClient, name: str) -> bool:
        """Tell whether there is a container of this name; raises for one that is none of this deployment."""
        from docker.errors import NotFound

        try:
            facts = client.api.inspect_container(name)
        except NotFound:
            return False
        if not self.states.is_mine(facts):
            brief = f"there is a container {name} already, which is none of this deployment"
            raise DeploymentError(brief, remedy=f"look at it, and remove it: docker rm {name}")
        return True

    def stop(self, unit: Unit, deadline: Deadline) -> None:
        """Stop the container of a unit, which the engine kills when its time is over."""
        from docker.errors import NotFound

        seconds = min(self.states.container(unit).stop_seconds, math.ceil(deadline.remaining))
        with self.connection.asking(MAKE_SECONDS) as client, suppress(NotFound):
            client.api.stop(container_name(self.target, unit.name), timeout=seconds)
        if self.connection.is_rootless:
            self.forwards.close(self.states.container(unit).ports)

    def remove(self, name: str) -> None:
        """Remove a container with everything in it; one that is gone is no error."""
        from docker.errors import NotFound

        with self.connection.asking(MAKE_SECONDS) as client, suppress(NotFound):
            client.api.remove_container(name, force=True, v=True)

    def discard(self, unit: Unit) -> None:
        """Remove the container of a unit that is gone or has changed."""
        self.remove(container_name(self.target, unit.name))
        self.states.forget(unit)

    def log(self, unit: Unit) -> bytes:
        """Return the output and error of a container."""
        from docker.errors import APIError

        if self.states.facts(unit) is None:
            return b""
        with self.connection.asking() as client, suppress(APIError):
            content: bytes = client.api.logs(container_name(self.target, unit.name))
            return content
        return b""
