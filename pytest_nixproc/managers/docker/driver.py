"""The driver: creates, starts, stops and looks at containers through the engine's API."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pytest_nixproc.errors import CommandFailed, DeploymentError, NixprocError, Unreachable, WaitTimeout
from pytest_nixproc.machines.api import Listener, Machine
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.api import Driver, Status, Target, Unit
from pytest_nixproc.managers.docker import arguments, images
from pytest_nixproc.managers.docker.connection import LOAD_SECONDS, MAKE_SECONDS, Connection
from pytest_nixproc.managers.docker.container import Container, describe_end, exit_status_of
from pytest_nixproc.managers.docker.generator import LABEL, container_name, image_prefix
from pytest_nixproc.managers.docker.looks import Looks
from pytest_nixproc.managers.docker.rootless import Forwards

if TYPE_CHECKING:
    from docker import DockerClient

ENGINE: Final = "docker-engine"
"""The generated directory's record of the engine, for whoever takes the deployment down."""

FORWARDS: Final = "docker-forwards"
"""And of the ports that RootlessKit forwards for it."""

LATE_SECONDS: Final = 2
"""How long an engine may take to begin to show what a client has asked for that was killed meanwhile."""

STARTERS: Final = 8
STOPPERS: Final = 32
"""How many requests at once: starting keeps the engine busy, stopping mostly waits for programs."""


Item = TypeVar("Item")


class DockerDriver(Driver):
    """Asks the engine for everything; containers are found again by their names and labels."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._connection = Connection(machine, f"{target.directory}/{ENGINE}")
        self._looks = Looks(machine, target, self._connection)
        self._forwards = Forwards(machine, f"{target.directory}/{FORWARDS}")
        self._places: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._made: set[str] = set()
        self._making = Lock()
        self._is_ours_alone = False
        """Whether nobody but us has asked the engine for anything, and we know of all that."""

    def open(self, deadline: Deadline) -> None:  # noqa: ARG002 - the clients have limits of their own
        """Connect to the engine, and remember which it was."""
        self._connection.open()
        self._is_ours_alone = True

    def close(self, deadline: Deadline) -> None:
        """Remove the deployment's containers and images, whoever has made them, until the engine shows none.

        An engine finishes what it was asked for, also when the client has died: one that somebody else has used for
        this deployment is looked at for a while longer.
        """
        if self._connection.is_recorded:
            self._remove_all(deadline)
        self._connection.close()

    def _remove_all(self, deadline: Deadline) -> None:
        try:
            wait_until(self._clearing(deadline), deadline, "remove containers and images")
        except WaitTimeout as error:
            brief = f"the Docker engine at {self._connection.address} does not let go"
            raise Unreachable(brief, details=str(error), remedy="see what the engine's log says") from error

    def _clearing(self, deadline: Deadline) -> Callable[[], str]:
        """Return a look that removes what it finds, and says so until nothing was found for long enough."""
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
        """How long the engine may take to show what we do not know of."""
        return 0.0 if self._is_ours_alone and not self._connection.owes_answers else LATE_SECONDS

    def _clear(self) -> str:
        """Remove the containers and images that there are; say what they were, or what the engine says against it."""
        containers = self._containers_here()
        problems = self._side_by_side(STARTERS, self._remove, containers)
        self._forwards.close()
        with self._connection.asking(MAKE_SECONDS) as client:
            found = {image: image for image in images.made_for(client, self._label, image_prefix(self.target))}
            if self._connection.is_rootless and found:
                self._take_over_files(client, min(found))
            problems |= self._side_by_side(1, partial(images.remove, client), found)
        return "; ".join(problems.values()) or ", ".join((*containers, *found))

    def remains(self) -> Sequence[str]:
        """Return the deployment's containers, images and volumes, from an engine that is not held on to."""
        with closing(self._connection), self._connection.asking() as client:
            volumes = client.api.volumes(filters={"label": self._label})["Volumes"] or ()
            return [
                *(f"container {name}" for name in self._containers_here()),
                *(f"image {name}" for name in images.made_for(client, self._label, image_prefix(self.target))),
                *(f"volume {volume['Name']}" for volume in volumes),
            ]

    @property
    def _label(self) -> str:
        return f"{LABEL}={self.target.identity}"

    def _containers_here(self) -> dict[str, str]:
        """Return the containers of the deployment, by name: one of another that has only got a name of ours is none."""
        with self._connection.asking() as client:
            entries = client.api.containers(all=True, filters={"label": self._label})
        # One that is being removed may have lost its name already.
        return {(entry["Names"] or [entry["Id"]])[0].removeprefix("/"): entry["Id"] for entry in entries}

    def _remove(self, name: str) -> None:
        """Remove a container with everything in it; one that is gone is no error."""
        from docker.errors import NotFound

        with self._connection.asking(MAKE_SECONDS) as client, suppress(NotFound):
            client.api.remove_container(name, force=True, v=True)

    def _take_over_files(self, client: DockerClient, image: str) -> None:
        """Make all state the caller's, where programs that took themselves for root have given some of it away."""
        state = self.target.state.state_dir
        client.containers.run(
            image,
            ["chown", "-R", "0:0", state],
            labels={LABEL: self.target.identity},
            mounts=self._mounts_of((self.machine.facts.shell,), taken=()),
            network_mode="none",
            remove=True,
            volumes={state: {"bind": state, "mode": "z"}},
        )

    def _side_by_side(self, width: int, action: Callable[[Item], object], items: Mapping[str, Item]) -> dict[str, str]:
        """Do something to many at the same time; return what the engine says against some, by name.

        When we are interrupted, what was not begun is not done, and what was begun is waited for: nothing may be made
        behind the back of whoever takes the deployment down.
        """
        pool = ThreadPoolExecutor(width)
        try:
            futures = {name: pool.submit(action, item) for name, item in items.items()}
            wait(futures.values())
        except BaseException:
            self._is_ours_alone = False
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        problems = {name: problem_of(future) for name, future in futures.items()}
        return {name: problem for name, problem in problems.items() if problem}

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Remove the containers of units that are gone or have changed; images may have other files now."""
        self._made.clear()
        self._side_by_side(STARTERS, self._forget, {unit.name: unit for unit in old if unit not in new})

    def _forget(self, unit: Unit) -> None:
        self._remove(container_name(self.target, unit.name))
        self._looks.forget(unit)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:  # noqa: ARG002 - it does not wait
        """Create what was not created, and start containers, some at a time."""
        return self._side_by_side(STARTERS, self._start, {unit.name: unit for unit in units})

    def _start(self, unit: Unit) -> None:
        container = self._looks.container(unit)
        self._make_image(container)
        with self._connection.asking(MAKE_SECONDS) as client:
            if not self._is_created(client, container):
                # Until the engine sees the end of a container whose program has ended, it would not start it again.
                self._looks.await_end_of_dead(unit)
            client.api.start(container.name)
        self._looks.mains.pop(unit.name, None)
        if self._connection.is_rootless and container.shares_network and container.ports:
            self._forward(unit, container)

    def _forward(self, unit: Unit, container: Container) -> None:
        """Make the ports of a container reachable whose engine has a network of its own."""
        first = self._looks.first_process(unit)
        if first and not self.machine.shares_network(first):
            self._forwards.open(first, container.ports)

    def _make_image(self, container: Container) -> None:
        """Make the image that containers share; whoever comes first makes it, the others wait."""
        with self._making:
            if container.image and container.tag not in self._made:
                seconds = MAKE_SECONDS if os.path.isdir(container.image) else LOAD_SECONDS
                with self._connection.asking(seconds) as client:
                    images.make(client, container.image, container.tag, self.target.identity)
                self._made.add(container.tag)

    def _is_created(self, client: DockerClient, container: Container) -> bool:
        """Create a container; tell whether that was done now. One that this deployment has created before is right."""
        from docker.errors import APIError

        keywords = dict(container.keywords)
        keywords["mounts"] = [*keywords.get("mounts", ()), *self._software(container)]
        if self._connection.is_rootless and not container.is_conventional:
            # The engine's root is who has started it, the only one that the state directory is open to.
            keywords["user"] = "0:0"
        try:
            client.containers.create(container.tag, list(container.command) or None, name=container.name, **keywords)
        except APIError:
            # Engines differ in how they word that the name is taken.
            if not self._is_there(client, container.name):
                raise
            return False
        return True

    def _is_there(self, client: DockerClient, name: str) -> bool:
        """Tell whether there is a container of this name; raises for one that is none of this deployment."""
        from docker.errors import NotFound

        try:
            facts = client.api.inspect_container(name)
        except NotFound:
            return False
        if not self._looks.is_mine(facts):
            brief = f"there is a container {name} already, which is none of this deployment"
            raise DeploymentError(brief, remedy=f"look at it, and remove it: docker rm {name}")
        return True

    def _software(self, container: Container) -> list[Any]:
        """Return the mounts of the machine's software, but for places that the model mounts something else on."""
        taken = arguments.mounted(container.keywords)
        # The engine puts its init there, and we would hide it; what is in /sbin is in /usr/sbin too, or is not needed.
        taken |= {"/sbin"} if container.keywords.get("init") else set()
        return self._mounts_of(container.paths, taken) if container.paths else []

    def _mounts_of(self, paths: tuple[str, ...], taken: Collection[str]) -> list[Any]:
        from docker.types import Mount

        if paths not in self._places:
            self._places[paths] = self.machine.software(paths)
        places = [place for place in self._places[paths] if place not in taken]
        return [Mount(target=place, source=place, type="bind", read_only=True) for place in places]

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Have the engine stop containers, which ends when they have; it kills what goes on past its limit."""
        here = self._containers_here()
        mine = {unit.name: unit for unit in units if container_name(self.target, unit.name) in here}
        problems = self._side_by_side(STOPPERS, lambda unit: self._stop(unit, deadline), mine)
        if problems:
            raise CommandFailed("containers were not stopped", details="\n".join(problems.values()))

    def _stop(self, unit: Unit, deadline: Deadline) -> None:
        from docker.errors import NotFound

        seconds = min(self._looks.container(unit).stop_seconds, math.ceil(deadline.remaining))
        with self._connection.asking(MAKE_SECONDS) as client, suppress(NotFound):
            client.api.stop(container_name(self.target, unit.name), timeout=seconds)
        if self._connection.is_rootless:
            self._forwards.close(self._looks.container(unit).ports)

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send SIGHUP, the usual request to read the configuration again."""
        from docker.errors import APIError

        try:
            with self._connection.asking() as client:
                client.api.kill(container_name(self.target, unit.name), "SIGHUP")
        except APIError as error:
            raise CommandFailed(f"{unit.name}: {error.explanation}") from error

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Ask about each container that was not known to run, or whose process has ended."""
        return {unit.name: self._status(unit) for unit in units}

    def _status(self, unit: Unit) -> Status:
        self._looks.await_end_of_dead(unit)
        facts = self._looks.facts(unit)
        if facts is None:
            return Status(running=False, text="it has no container")
        state = facts["State"]
        if state["Running"]:
            return Status(running=True, pid=self._looks.mains.get(unit.name), text=state["Status"])
        has_ended = state["Status"] in ("exited", "dead")
        return Status(running=False, has_ended=has_ended, exit_status=exit_status_of(state), text=describe_end(facts))

    def process_named(self, unit: Unit, content: bytes) -> int | None:
        """Return the process that a PID file names by its number in the container's PID namespace."""
        return self._looks.process_named(unit, content)

    def members(self, unit: Unit) -> Sequence[int]:
        """Return everything in a container but its first process."""
        return self._looks.members(unit)

    def missing(self, unit: Unit) -> str:
        """Return what a container still owes: ports are accepted for it before it listens on them."""
        first = self._looks.first_process(unit)
        for outer, inner in self._looks.forwarded(unit.name).items():
            if first and inner not in self._looks.listening(first):
                return f"port {inner} of its container, published as {outer}, is not listened on"
        return super().missing(unit)

    def exit_status(self, unit: Unit, pid: int) -> int | None:  # noqa: ARG002 - a container has one main process
        """Return how a container has ended."""
        return self._status(unit).exit_status

    def listeners(self, statuses: Mapping[str, Status]) -> Sequence[Listener]:
        """Return the ports that the engine forwards to containers with a network of their own."""
        return [
            Listener("127.0.0.1", outer, status.pid)
            for name, status in statuses.items()
            for outer, inner in self._looks.forwarded(name).items()
            if status.pid and inner in self._looks.listening(status.pid)
        ]

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        return len(self._log(unit))

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return what a container has written to its output and error."""
        return self._log(unit)[start:].decode(errors="replace")

    def _log(self, unit: Unit) -> bytes:
        from docker.errors import APIError

        if self._looks.facts(unit) is None:
            return b""
        with self._connection.asking() as client, suppress(APIError):
            content: bytes = client.api.logs(container_name(self.target, unit.name))
            return content
        return b""


def problem_of(future: Future[object]) -> str:
    """Return what the engine or the deployment says against an action; an engine that does not answer is an error."""
    from docker.errors import APIError

    try:
        future.result()
    except APIError as error:
        return str(error.explanation or error)
    except Unreachable:
        raise
    except NixprocError as error:
        return str(error)
    return ""
