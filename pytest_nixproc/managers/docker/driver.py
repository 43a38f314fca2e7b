"""The driver: creates, starts, stops and looks at containers through the engine's API."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pytest_nixproc.errors import CommandFailed, DeploymentError, NixprocError, Unreachable, WaitTimeout
from pytest_nixproc.machines.api import Listener, Machine
from pytest_nixproc.machines.process_table import descendants, innermost_pid
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.api import Driver, Status, Target, Unit
from pytest_nixproc.managers.docker import arguments, images
from pytest_nixproc.managers.docker.engine import address, answering, connect, settings
from pytest_nixproc.managers.docker.generator import LABEL, container_name, file_name, image_prefix
from pytest_nixproc.managers.docker.rootless import Forwards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

ENGINE: Final = "docker-engine"
"""The generated directory's record of the engine, for whoever takes the deployment down."""

FORWARDS: Final = "docker-forwards"
"""And of the ports that RootlessKit forwards for it."""

LOOK_SECONDS: Final = 4
MAKE_SECONDS: Final = 10
LOAD_SECONDS: Final = 600
IMPATIENT_SECONDS: Final = 1
"""How long to wait for an answer: to a look, which is no work; to a request; and to any, once one was owed."""

LATE_SECONDS: Final = 2
"""How long an engine may take to begin to show what a client has asked for that was killed meanwhile."""

NOTICE_SECONDS: Final = 2
STARTERS: Final = 8
STOPPERS: Final = 32
"""How many requests at once: starting keeps the engine busy, stopping mostly waits for programs."""

SIGNALLED: Final = 128
LISTENING: Final = "0A"
"""State of a listening socket in /proc/net/tcp (proc(5), linux/tcp_states.h)."""


@dataclass(frozen=True)
class Container:
    """One container as its generated files describe it; ``image`` is what its image is made of, if we make it."""

    name: str
    image: str
    tag: str
    command: tuple[str, ...]
    keywords: Mapping[str, Any]
    paths: tuple[str, ...]
    ports: tuple[int, ...]
    stop_seconds: int
    is_conventional: bool

    @property
    def shares_network(self) -> bool:
        """Tell whether it uses the network of the engine's host."""
        return bool(self.keywords.get("network_mode") == "host")


Item = TypeVar("Item")


def read_container(machine: Machine, target: Target, unit: Unit) -> Container:
    """Read a container's files."""

    def text(suffix: str) -> str:
        return os.fsdecode(machine.read(f"{target.directory}/{file_name(unit.name)}-{suffix}") or b"")

    found = dict(entry.partition("=")[::2] for entry in shlex.split(text("docker-settings")))
    return Container(
        name=container_name(target, unit.name),
        image=found.get("dockerImage", ""),
        tag=found.get("dockerImageTag", ""),
        command=tuple(shlex.split(text("docker-cmd"))),
        keywords=arguments.keywords(text("docker-createparams").split("\n")[:-1]),
        paths=tuple(shlex.split(text("storepaths"))),
        ports=tuple(map(int, found.get("dockerPorts", "").split())),
        stop_seconds=int(found.get("dockerStopTimeout") or 1),
        is_conventional=bool(found.get("dockerConventional")),
    )


class DockerDriver(Driver):
    """Asks the engine for everything; containers are found again by their names and labels."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._record = f"{target.directory}/{ENGINE}"
        self._containers: dict[str, Container] = {}
        self._running: dict[str, Mapping[str, Any]] = {}
        """What the engine has said of containers that ran then; true for as long as their process lives."""

        self._mains: dict[str, int] = {}
        """Programs as last seen: what is the eldest child later may be an orphan."""

        self._forwards = Forwards(machine, f"{target.directory}/{FORWARDS}")
        self._places: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._made: set[str] = set()
        self._making = Lock()
        self._late_seconds = LATE_SECONDS
        self._clients: dict[int, DockerClient] = {}
        self._connecting = Lock()
        self._patience = LOAD_SECONDS

    @cached_property
    def _environment(self) -> Mapping[str, str]:
        """The variables that lead to the engine of this deployment."""
        record = self.machine.read(self._record)
        return os.environ if record is None else json.loads(record)

    def _client(self, seconds: int) -> DockerClient:
        """Return the client that waits so long for answers; they agree with the engine on a version once."""
        with self._connecting:
            if seconds not in self._clients:
                others = [other.api.api_version for other in self._clients.values()]
                self._clients[seconds] = connect(self._environment, seconds, *others[:1])
            return self._clients[seconds]

    @contextmanager
    def _asking(self, seconds: int = LOOK_SECONDS) -> Iterator[DockerClient]:
        """Ask the engine; once it has not answered, it is not waited for as long as before."""
        from docker.errors import APIError

        with answering(address(self._environment)):
            client = self._client(seconds)
            client.api.timeout = min(seconds, self._patience)
            try:
                yield client
            except APIError:
                raise
            except OSError:
                self._patience, self._late_seconds = IMPATIENT_SECONDS, LATE_SECONDS
                raise
            self._patience = LOAD_SECONDS

    @cached_property
    def _is_rootless(self) -> bool:
        with self._asking() as client:
            return "name=rootless" in (client.info().get("SecurityOptions") or ())

    def open(self, deadline: Deadline) -> None:  # noqa: ARG002 - the clients have limits of their own
        """Connect to the engine, and remember which it was."""
        self._environment = settings(os.environ)
        with self._asking():
            self.machine.write(self._record, json.dumps(self._environment), 0o600)
        self._late_seconds = 0

    def close(self, deadline: Deadline) -> None:
        """Remove the deployment's containers and images, whoever has made them, until the engine shows none.

        An engine finishes what it was asked for, also when the client has died: one that somebody else has used for
        this deployment is looked at for a while longer.
        """
        if self.machine.exists(self._record):
            self._remove_all(deadline)
        for client in self._clients.values():
            client.close()

    def _remove_all(self, deadline: Deadline) -> None:
        try:
            wait_until(self._clearing(deadline), deadline, "remove containers and images")
        except WaitTimeout as error:
            brief = f"the Docker engine at {address(self._environment)} does not let go"
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

    def _clear(self) -> str:
        """Remove the containers and images that there are; say what they were, or what the engine says against it."""
        containers = self._containers_here()
        problems = self._side_by_side(STARTERS, self._remove, containers)
        self._forwards.close()
        with self._asking(MAKE_SECONDS) as client:
            found = {image: image for image in images.made_for(client, self._label, image_prefix(self.target))}
            if self._is_rootless and found:
                self._take_over_files(client, min(found))
            problems |= self._side_by_side(1, partial(images.remove, client), found)
        return "; ".join(problems.values()) or ", ".join((*containers, *found))

    def remains(self) -> Sequence[str]:
        """Return the deployment's containers, images and volumes."""
        with self._asking() as client:
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
        with self._asking() as client:
            entries = client.api.containers(all=True, filters={"label": self._label})
        # One that is being removed may have lost its name already.
        return {(entry["Names"] or [entry["Id"]])[0].removeprefix("/"): entry["Id"] for entry in entries}

    def _remove(self, name: str) -> None:
        """Remove a container with everything in it; one that is gone is no error."""
        from docker.errors import NotFound

        with self._asking(MAKE_SECONDS) as client, suppress(NotFound):
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
            self._late_seconds = LATE_SECONDS
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        problems = {name: problem_of(future) for name, future in futures.items()}
        return {name: problem for name, problem in problems.items() if problem}

    def _container(self, unit: Unit) -> Container:
        if unit.name not in self._containers:
            self._containers[unit.name] = read_container(self.machine, self.target, unit)
        return self._containers[unit.name]

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Remove the containers of units that are gone or have changed."""
        self._side_by_side(STARTERS, self._forget, {unit.name: unit for unit in old if unit not in new})

    def _forget(self, unit: Unit) -> None:
        self._remove(container_name(self.target, unit.name))
        for known in (self._containers, self._running, self._mains):
            known.pop(unit.name, None)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:  # noqa: ARG002 - it does not wait
        """Create what was not created, and start containers, some at a time."""
        return self._side_by_side(STARTERS, self._start, {unit.name: unit for unit in units})

    def _start(self, unit: Unit) -> None:
        container = self._container(unit)
        self._make_image(container)
        with self._asking(MAKE_SECONDS) as client:
            if not self._is_created(client, container):
                self._await_end_of_dead(unit)
            client.api.start(container.name)
        if self._is_rootless and container.shares_network and container.ports:
            self._forward(unit, container)

    def _forward(self, unit: Unit, container: Container) -> None:
        """Make the ports of a container reachable whose engine has a network of its own."""
        facts = self._facts(unit)
        if facts and facts["State"]["Running"] and not self.machine.shares_network(facts["State"]["Pid"]):
            self._forwards.open(facts["State"]["Pid"], container.ports)

    def _await_end_of_dead(self, unit: Unit) -> None:
        """Wait for the end of a container whose program has ended: until then, it would not be started again."""
        facts = self._facts(unit)
        if facts and facts["State"]["Running"] and self._has_lost_its_program(unit, facts["State"]["Pid"]):
            self._await_end(unit)
        self._mains.pop(unit.name, None)

    def _make_image(self, container: Container) -> None:
        """Make the image that containers share; whoever comes first makes it, the others wait."""
        with self._making:
            if container.image and container.tag not in self._made:
                with self._asking(MAKE_SECONDS if os.path.isdir(container.image) else LOAD_SECONDS) as client:
                    images.make(client, container.image, container.tag, self.target.identity)
                self._made.add(container.tag)

    def _is_created(self, client: DockerClient, container: Container) -> bool:
        """Create a container; tell whether that was done now. One that this deployment has created before is right."""
        from docker.errors import APIError

        keywords = dict(container.keywords)
        keywords["mounts"] = [*keywords.get("mounts", ()), *self._software(container)]
        if self._is_rootless and not container.is_conventional:
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
        if not self._is_mine(facts):
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

        seconds = min(self._container(unit).stop_seconds, math.ceil(deadline.remaining))
        with self._asking(MAKE_SECONDS) as client, suppress(NotFound):
            client.api.stop(container_name(self.target, unit.name), timeout=seconds)
        if self._is_rootless:
            self._forwards.close(self._container(unit).ports)

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send SIGHUP, the usual request to read the configuration again."""
        from docker.errors import APIError

        try:
            with self._asking() as client:
                client.api.kill(container_name(self.target, unit.name), "SIGHUP")
        except APIError as error:
            raise CommandFailed(f"{unit.name}: {error.explanation}") from error

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Ask about each container that was not known to run, or whose process has ended."""
        return {unit.name: self._status(unit) for unit in units}

    def _status(self, unit: Unit) -> Status:
        facts = self._facts(unit)
        if facts and facts["State"]["Running"] and self._has_lost_its_program(unit, facts["State"]["Pid"]):
            self._await_end(unit)
            facts = self._facts(unit)
        if facts is None:
            return Status(running=False, text="it has no container")
        state = facts["State"]
        if state["Running"]:
            return Status(running=True, pid=self._mains.get(unit.name), text=state["Status"])
        has_ended = state["Status"] in ("exited", "dead")
        return Status(running=False, has_ended=has_ended, exit_status=exit_status_of(state), text=describe_end(facts))

    def _has_lost_its_program(self, unit: Unit, first: int) -> bool:
        """Tell whether a program that was seen to run does so no more; its container is about to end then."""
        known = self._mains.get(unit.name) or self._main_pid(unit, first)
        if known is None:
            return False
        self._mains[unit.name] = known
        has_ended = bool(self.machine.ended([known]))
        if has_ended:
            del self._mains[unit.name]
        return has_ended

    def _facts(self, unit: Unit) -> Mapping[str, Any] | None:
        """Return what the engine says of a container, once it has noticed an end that can be seen already."""
        known = self._running.get(unit.name)
        if known is not None and not self.machine.ended([known["State"]["Pid"]]):
            return known
        facts = self._inspect(unit)
        if facts and facts["State"]["Running"] and self.machine.ended([facts["State"]["Pid"]]):
            self._await_end(unit)
            facts = self._inspect(unit)
        self._running.pop(unit.name, None)
        if facts and facts["State"]["Running"]:
            self._running[unit.name] = facts
        return facts

    def _inspect(self, unit: Unit) -> Mapping[str, Any] | None:
        from docker.errors import NotFound

        with self._asking() as client, suppress(NotFound):
            facts: Mapping[str, Any] = client.api.inspect_container(container_name(self.target, unit.name))
            return facts if self._is_mine(facts) else None
        return None

    def _is_mine(self, facts: Mapping[str, Any]) -> bool:
        """Tell whether a container of a name of ours is one of this deployment."""
        return bool((facts["Config"]["Labels"] or {}).get(LABEL) == self.target.identity)

    def _await_end(self, unit: Unit) -> None:
        """Wait until the engine sees that a container has ended, which it does in no time."""
        from docker.errors import NotFound
        from requests.exceptions import RequestException

        with self._asking() as client, suppress(NotFound, RequestException):
            client.api.wait(container_name(self.target, unit.name), timeout=NOTICE_SECONDS)

    def _main_pid(self, unit: Unit, first: int) -> int | None:
        """Return the program behind the first process of a container, which is ours or the engine's init."""
        if self._container(unit).is_conventional:
            return first
        if unit.pid_file is not None:
            return self.process_named(unit, self.machine.read(unit.pid_file) or b"")
        return next(iter(self._children(first)), None)

    def _children(self, pid: int) -> list[int]:
        """Return the children of a process, the eldest first (proc(5), /proc/PID/task/TID/children)."""
        return [int(child) for child in (self.machine.read(f"/proc/{pid}/task/{pid}/children") or b"").split()]

    def process_named(self, unit: Unit, content: bytes) -> int | None:
        """Return the process that a PID file names, which has the number of the container's own PID namespace."""
        number = super().process_named(unit, content)
        facts = self._facts(unit) if number else None
        if facts is None or not facts["State"]["Running"]:
            return None
        first = facts["State"]["Pid"]
        candidates = [first, *self._children(first), *descendants([first], self.machine.parents())]
        statuses = ((pid, self.machine.read(f"/proc/{pid}/status") or b"") for pid in candidates)
        return next((pid for pid, status in statuses if innermost_pid(status) == number), None)

    def members(self, unit: Unit, main: int) -> Sequence[int]:  # noqa: ARG002 - the container holds them all
        """Return everything in a container but its first process, which is ours or the engine's init."""
        facts = self._facts(unit)
        is_running = facts is not None and facts["State"]["Running"]
        return descendants([facts["State"]["Pid"]], self.machine.parents()) if facts and is_running else ()

    def missing(self, unit: Unit) -> str:
        """Return what a container still owes: ports are accepted for it before it listens on them."""
        facts = self._facts(unit)
        for outer, inner in self._forwarded(unit.name, facts).items():
            if facts and inner not in self._listening(facts["State"]["Pid"]):
                return f"port {inner} of its container, published as {outer}, is not listened on"
        return super().missing(unit)

    def exit_status(self, unit: Unit, pid: int) -> int | None:  # noqa: ARG002 - a container has one main process
        """Return how a container has ended."""
        return self._status(unit).exit_status

    def _forwarded(self, name: str, facts: Mapping[str, Any] | None) -> dict[int, int]:
        """Return the ports of the machine that are forwarded to a container, with the container's."""
        container = self._containers.get(name)
        if facts and container and container.shares_network and self._is_rootless:
            is_elsewhere = not self.machine.shares_network(facts["State"]["Pid"])
            return {port: port for port in container.ports} if is_elsewhere else {}
        return published(facts)

    def _listening(self, pid: int) -> set[int]:
        """Return the ports that are listened on in a process's network."""
        tables = [self.machine.read(f"/proc/{pid}/net/{name}") or b"" for name in ("tcp", "tcp6")]
        rows = [row.split() for table in tables for row in table.decode().splitlines()[1:]]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENING}

    def listeners(self, statuses: Mapping[str, Status]) -> Sequence[Listener]:
        """Return the ports that the engine forwards to containers with a network of their own."""
        return [
            Listener("127.0.0.1", outer, status.pid)
            for name, status in statuses.items()
            for outer, inner in self._forwarded(name, self._running.get(name)).items()
            if status.pid and inner in self._listening(status.pid)
        ]

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        return len(self._log(unit))

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return what a container has written to its output and error."""
        return self._log(unit)[start:].decode(errors="replace")

    def _log(self, unit: Unit) -> bytes:
        from docker.errors import APIError

        if self._facts(unit) is None:
            return b""
        with self._asking() as client, suppress(APIError):
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


def exit_status_of(state: Mapping[str, Any]) -> int:
    """Return an exit status; a container reports the end by a signal as shells do."""
    code = int(state["ExitCode"])
    return SIGNALLED - code if code - SIGNALLED in set(signal.Signals) else code


def describe_end(facts: Mapping[str, Any]) -> str:
    """Word how a container ended, or why it did not start."""
    state = facts["State"]
    if state["OOMKilled"]:
        limit = facts["HostConfig"]["Memory"]
        return f"killed at its memory limit of {limit} bytes (OOM), status {state['ExitCode']}"
    return f"{state['Status']} with status {state['ExitCode']} {state['Error']}".strip()


def published(facts: Mapping[str, Any] | None) -> dict[int, int]:
    """Return the TCP ports of the machine that the engine forwards to a container, with the container's."""
    ports = (facts or {}).get("NetworkSettings", {}).get("Ports") or {}
    return {
        int(binding["HostPort"]): int(inner.partition("/")[0])
        for inner, bindings in ports.items()
        if inner.endswith("/tcp")
        for binding in bindings or ()
    }
