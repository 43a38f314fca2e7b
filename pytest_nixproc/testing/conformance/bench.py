"""The test bench, which deploys models with one manager, and functions that inspect its deployments."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from pytest_nixproc._persistence.assigner import Assigner
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.planner import LoadModel, Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.instance import RunningInstance
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import ModelError, NixprocError, Unsupported, WaitTimeout
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import environment_of, is_alive, own_pid
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.managers.api import Driver, Manager
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.pace import patient
from pytest_nixproc.testing.programs import models
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.value import Value

Build = Callable[[StateDirs], Mapping[str, Instance]]

IDLE: Final = (sys.executable, "-I", "-S", "-c", "import signal; signal.pause()")


class Received(Value):
    """The execution environment of a probe, as the probe has written it down."""

    arguments: tuple[bytes, ...]
    """The whole command line."""

    environment: Mapping[bytes, bytes]
    directory: bytes
    """The working directory."""

    umask: int
    nice: int
    limits: Mapping[str, Sequence[int]]
    """The limits of resources, soft and hard, by their names in C without ``RLIMIT_``."""

    users: Mapping[str, Sequence[int]]
    """The users that are known by name, each with its number and that of its primary group."""

    descriptors: Mapping[str, str]
    """The open descriptors by their numbers, each with the file that it refers to."""

    begun: float
    """When the probe began: seconds of the monotonic clock."""

    listening: float
    """When the probe was about to listen, on the same clock as ``begun``."""

    pid: int
    """The probe's pid as it sees it itself, in its PID namespace; in a container, not the machine's."""


def received(system: System, name: str) -> Received:
    """Return the execution environment that the probe of this name has written down."""
    return received_in(system.machine, models.dump_of(system.state, name))


def received_in(machine: Machine, dump: str) -> Received:
    """Return the execution environment that a probe has written into a file."""
    content = machine.files.read(dump)
    assert content is not None, f"nothing has been written to {dump}"
    facts = json.loads(content)
    entries = [bytes.fromhex(entry) for entry in facts.pop("environment")]
    names = [entry.partition(b"=")[0] for entry in entries]
    assert len(names) == len(set(names)), "a variable is given twice"
    return Received(
        arguments=tuple(bytes.fromhex(word) for word in facts.pop("arguments")),
        environment={entry.partition(b"=")[0]: entry.partition(b"=")[2] for entry in entries},
        directory=bytes.fromhex(facts.pop("directory")),
        **facts,
    )


def own_number(instance: RunningInstance) -> int | None:
    """Return the pid of an instance's main process in its innermost PID namespace; None if there is no process."""
    pid = instance.pid
    return None if pid is None else own_pid(pid)


def pids_of(system: System) -> dict[str, int | None]:
    """Return the main process of each instance."""
    return {name: status.pid for name, status in system.statuses().items()}


class Bench:
    """A bench that deploys models with one manager, below a state root of its own, and finds all that is left."""

    stop_seconds: ClassVar[float] = 10.0
    """How long a stop may take; what takes less was not killed at the limit."""

    def __init__(self, manager: Manager, machine: Machine) -> None:
        self.manager = manager
        self.machine = machine
        # Short, and resolved: a Unix socket's path has about 100 bytes, and a probe reports real paths.
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix="np"))
        self.scratch = f"{self.directory}/x"
        self.state_root = f"{self.directory}/s"
        os.mkdir(self.scratch)
        self._assigner = Assigner(Leases(), machine, self.directory)
        self._ports: list[int] = []
        self._roots: list[str] = []
        self._registry = Registry()

    def port(self) -> int:
        """Lease a TCP port, which no other worker or session gets, even while nobody listens on it."""
        self._ports.append(self._assigner.free_port(str(len(self._ports))))
        return self._ports[-1]

    def planner(self, *, state_root: str | None = None, **settings: Any) -> Planner:
        """Return a planner of deployments; its time limits are short by default, so that no test hangs for long."""
        limits: dict[str, Any] = {
            "start_seconds": 20.0,
            "stop_seconds": self.stop_seconds,
            "state_root": state_root or self.state_root,
        }
        given = Settings(**(limits | settings))
        return Planner(self.manager, self.machine, self._registry.rules, given, self._registry.managers)

    @contextmanager
    def deploy(self, build: Build, **settings: Any) -> Iterator[System]:
        """Deploy the model that ``build`` returns for its state directories, for the time of a ``with`` block."""
        system = System(self.planner(**settings))
        self._roots.append(system.root)
        system.start(load(build))
        try:
            yield system
        finally:
            system.stop()

    def refuses(self, build: Build) -> bool:
        """Tell whether the manager refuses a model; its error has to name the manager, or be about the model alone."""
        try:
            refusals: list[NixprocError] = list(self.planner().plan(load(build)).refusals.values())
        except (Unsupported, ModelError) as error:
            refusals = [error]
        for refusal in refusals:
            assert isinstance(refusal, ModelError) or self.manager.name in str(refusal)
        return bool(refusals)

    def honoured(self, **parameters: Any) -> dict[str, Any]:
        """Return the given parameters of a process without those that the manager refuses."""
        missing = self.manager.capabilities.unsupported
        return {name: value for name, value in parameters.items() if name not in missing}

    def await_that(self, condition: Callable[[], object], what: str, seconds: float = 5) -> None:
        """Wait until something holds; ``seconds`` is the limit on a quiet machine, and grows on a busy one."""

        def wait(limit: float) -> bool:
            with suppress(WaitTimeout):
                wait_until(lambda: "" if condition() else "not yet", self.machine.deadline(limit), what)
                return True
            return False

        assert patient(wait, seconds), f"waited until {what}: not within {seconds:g} s"

    def await_line(self, instance: RunningInstance, line: str) -> None:
        """Wait until an instance has logged a line."""
        self.await_that(lambda: line in instance.log.splitlines(), f"the log has the line {line!r}")

    def deployments(self, state_root: str) -> list[str]:
        """Return the paths of all entries in a state root, its deployments, without the root itself."""
        return [f"{state_root}/{name}" for name in os.listdir(state_root)] if os.path.isdir(state_root) else []

    def leftovers(self) -> list[str]:
        """End all processes and remove all files that are left behind, and return their descriptions."""
        tag = f"{DEPLOYMENT}={self.directory}/".encode()
        found = []
        for pid in self.machine.processes.parents():
            if tag in environment_of(pid) and is_alive(pid):
                found.append(f"process {pid}: {self.machine.processes.describe(pid)}")
                self.machine.processes.signal(pid, signal.SIGKILL)
        found += [f"port {port}" for port in self._ports if not self.machine.network.port_is_free(port)]
        found += [f"file {name}" for name in self.deployments(self.state_root)]
        found += [remaining for root in self._roots for remaining in remains(self.manager, self.machine, root)]
        self._assigner.release()
        shutil.rmtree(self.directory)
        return found


@contextmanager
def clean(bench: Bench) -> Iterator[Bench]:
    """Use a bench for the time of a ``with`` block, and fail when anything is left on it."""
    yield bench
    leftovers = bench.leftovers()
    assert not leftovers, f"left behind: {leftovers}"


def remains(manager: Manager, machine: Machine, root: str) -> Sequence[str]:
    """Return the objects that a manager still has of a deployment, of which only the directory is known."""
    driver = driver_at(manager, machine, root)
    try:
        return driver.remains()
    finally:
        driver.close(machine.deadline(1))


def driver_at(manager: Manager, machine: Machine, root: str) -> Driver:
    """Return a driver for a deployment of which only the directory is known."""
    directory = DeploymentDirectory(root)
    return manager.driver(machine, Target(directory.state, directory.profile, directory.identity))


def load(build: Build) -> LoadModel:
    """Return the function that makes a model for the state directories of a deployment."""
    return lambda arguments: ProcessesModel(build(arguments.state), origin="of a conformance test")


def one(instance: Callable[[StateDirs], Instance]) -> Build:
    """Return a model of a single instance, called ``it``."""
    return lambda state: {"it": instance(state)}


def impatient(instance: Instance, seconds: float) -> Instance:
    """Return an instance with a start limit of its own; the time that its manager has to start stays the same."""
    return Instance(instance.pkg, **instance.attributes, start_timeout=seconds)


def stopped_within(instance: Instance, seconds: float) -> Instance:
    """Return an instance with a stop limit of its own."""
    return Instance(instance.pkg, **instance.attributes, stop_timeout=seconds)


@contextmanager
def bystander(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has nothing to do with a deployment; it has to be alive at the end."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            assert process.poll() is None, "a process that is none of ours was touched"
        finally:
            process.kill()


def side_by_side(*actions: Callable[[], object], seconds: float = 60) -> None:
    """Do things in threads of their own; raise the first error of one, or say that some have not come to an end."""
    errors: list[BaseException] = []

    def carry_out(action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [Thread(target=carry_out, args=(action,), daemon=True) for action in actions]

    def wait(limit: float) -> bool:
        end = time.monotonic() + limit
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    for thread in threads:
        thread.start()
    assert patient(wait, seconds), f"a thread has not come to an end within {seconds:g} s"
    for error in errors:
        raise error


def write_text(path: str, text: str) -> None:
    """Write a file of the test's own."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def read_text(path: str) -> str:
    """Return the content of a file of the test's own."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def http_body(instance: RunningInstance) -> str:
    """Ask a program at its URL for its pid."""
    url = urlsplit(instance.url)
    with socket.create_connection((url.hostname, url.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.makefile("rb").read().rpartition(b"\r\n")[2].decode()


def seconds_of(system: System, happening: str, name: str) -> float:
    """Return the time of an event of an instance, such as ``start`` or ``stopped``, in seconds of the timeline."""
    return next(event.seconds for event in system.timeline if (event.happening, event.instance) == (happening, name))
