"""The objects of a deployment in an engine, whoever has made them: containers, images, volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from pytest_nixproc.errors import Unreachable, WaitTimeout
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.docker.connection import MAKE_SECONDS, STARTERS
from pytest_nixproc.managers.docker.containers import Containers
from pytest_nixproc.managers.docker.generator import LABEL, label_of
from pytest_nixproc.values.target import Target

if TYPE_CHECKING:
    from docker import DockerClient

LATE_SECONDS: Final = 2
"""How long an engine may take to begin to show what a client has asked for that was killed meanwhile."""


class Belongings:
    """The objects of a deployment, to list and to remove them; containers are found by their labels."""

    def __init__(self, machine: Machine, target: Target, containers: Containers) -> None:
        self.machine = machine
        self.target = target
        self.containers = containers
        self.images = containers.images
        self.connection = containers.connection

    def names(self) -> Sequence[str]:
        """Return descriptions of the deployment's containers, images and volumes."""
        with self.connection.asking() as client:
            volumes = client.api.volumes(filters={"label": label_of(self.target)})["Volumes"] or ()
            return [
                *(f"container {name}" for name in self.containers.here()),
                *(f"image {name}" for name in self.images.here(client)),
                *(f"volume {volume['Name']}" for volume in volumes),
            ]

    def remove_all(self, deadline: Deadline) -> None:
        """Remove containers and images until the engine shows none."""
        try:
            wait_until(self._clearing(deadline), deadline, "remove containers and images")
        except WaitTimeout as error:
            brief = f"the Docker engine at {self.connection.address} does not let go"
            raise Unreachable(brief, details=str(error), remedy="see what the engine's log says") from error

    def _clearing(self, deadline: Deadline) -> Callable[[], str]:
        """Return a condition that removes containers and images, and holds once none was found for long enough."""
        quiet = self.machine.deadline(self._late_seconds)

        def look() -> str:
            nonlocal quiet
            if found := self._clear():
                quiet = self.machine.deadline(self._late_seconds)
                return found
            return "the engine may still be making some" if quiet.remaining and deadline.remaining else ""

        return look

    @property
    def _late_seconds(self) -> float:
        """The seconds that the engine may take to show objects that we do not know of."""
        return 0.0 if self.connection.is_ours_alone and not self.connection.owes_answers else LATE_SECONDS

    def _clear(self) -> str:
        """Remove the containers and images that exist; return the engine's errors, or else their names."""
        here = self.containers.here()
        problems = self.connection.side_by_side(STARTERS, self.containers.remove, here)
        self.containers.forwards.close()
        with self.connection.asking(MAKE_SECONDS) as client:
            found = {image: image for image in self.images.here(client)}
            if self.connection.is_rootless and found:
                self._take_over_files(client, min(found))
            problems |= self.connection.side_by_side(1, partial(self.images.remove, client), found)
        return "; ".join(problems.values()) or ", ".join((*here, *found))

    def _take_over_files(self, client: DockerClient, image: str) -> None:
        """Make the caller the owner of all state, where programs that are root in a container have changed that."""
        state = self.target.state.state_dir
        client.containers.run(
            image,
            ["chown", "-R", "0:0", state],
            labels={LABEL: self.target.identity},
            mounts=self.containers.mounts.of_programs((self.machine.facts.shell,)),
            network_mode="none",
            remove=True,
            volumes={state: {"bind": state, "mode": "z"}},
        )
