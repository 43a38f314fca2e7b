"""The bench that tests deploy on, and what they see of what they have deployed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pytest_nixproc.deployment.planner import Load, Planner, Settings
from pytest_nixproc.deployment.site import TAG, Site
from pytest_nixproc.deployment.system import RunningInstance, System
from pytest_nixproc.errors import ModelError, NixprocError, Unsupported
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import environment_of, is_alive, own_pid
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.managers.api import Driver, Manager, Target
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.programs import models

Build = Callable[[StateDirs], Mapping[str, Instance]]

IDLE: Final = (sys.executable, "-I", "-S", "-c", "import signal; signal.pause()")


@dataclass(frozen=True)
class Received:
    """What a probe was given."""

    arguments: tuple[bytes, ...]
    environment: Mapping[bytes, bytes]
    directory: bytes
    umask: int
    nice: int
    descriptors: Mapping[str, str]
    begun: float
    listening: float
    pid: int


def received(system: System, name: str) -> Received:
    """Return what the probe of this name has written down."""
    return received_in(system.machine, models.dump_of(system.state, name))


def received_in(machine: Machine, dump: str) -> Received:
    """Return what a probe has written into a file."""
    content = machine.read(dump)
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
    """Return the number by which an instance's main process knows itself: in a container, it is not the machine's."""
    pid = instance.pid
    return None if pid is None else own_pid(pid)


class Bench:
    """Deploys models with one manager, below a state root of its own, and sees that nothing is left."""

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
        self._ports: list[int] = []
        self._roots: list[str] = []
        self._rules = Registry().rules

    def port(self) -> int:
        """Return a TCP port that is free; below the range from which kernels choose ports of clients."""
        while True:
            port = 20000 + secrets.randbelow(12000)
            if port not in self._ports and self.machine.port_is_free(port):
                self._ports.append(port)
                return port

    def planner(self, *, state_root: str | None = None, **settings: Any) -> Planner:
        """Return a planner; times are short by default, so that what hangs does not hang long."""
        limits: dict[str, Any] = {
            "start_seconds": 20.0,
            "stop_seconds": self.stop_seconds,
            "state_root": state_root or self.state_root,
        }
        return Planner(self.manager, self.machine, self._rules, Settings(**(limits | settings)))

    @contextmanager
    def deploy(self, build: Build, **settings: Any) -> Iterator[System]:
        """Deploy what ``build`` returns for its state directories, for the time of a ``with`` block."""
        system = System(self.planner(**settings))
        self._roots.append(system.root)
        system.start(load(build))
        try:
            yield system
        finally:
            system.stop()

    def refuses(self, build: Build) -> bool:
        """Tell whether the manager refuses to express a model, in words that name it."""
        try:
            draft = self.planner().draft(load(build))
        except (Unsupported, ModelError) as error:
            return self.is_named_by(error)
        return any(self.is_named_by(refusal) for refusal in draft.refusals.values())

    def honoured(self, **parameters: Any) -> dict[str, Any]:
        """Return those of a process's parameters that the manager does not refuse."""
        missing = self.manager.capabilities.unsupported
        return {name: value for name, value in parameters.items() if name not in missing}

    def is_named_by(self, error: NixprocError) -> bool:
        """Tell whether an error is about the model alone, or names the manager that it is about; it has to."""
        assert isinstance(error, ModelError) or self.manager.name in str(error)
        return True

    def await_that(self, condition: Callable[[], object], what: str, seconds: float = 5) -> None:
        """Wait until something holds."""
        wait_until(lambda: "" if condition() else "not yet", self.machine.deadline(seconds), f"wait until {what}")

    def await_line(self, instance: RunningInstance, line: str) -> None:
        """Wait until an instance has logged a line."""
        self.await_that(lambda: line in instance.log.splitlines(), f"the log has the line {line!r}")

    def deployments(self, state_root: str) -> list[str]:
        """Return what is in a state root; the root itself belongs to who named it."""
        return [f"{state_root}/{name}" for name in os.listdir(state_root)] if os.path.isdir(state_root) else []

    def leftovers(self) -> list[str]:
        """End what is left behind, and say what it was."""
        tag = f"{TAG}={self.directory}/".encode()
        found = [f"process {pid}: {self.machine.describe(pid)}" for pid in self._kill_tagged(tag)]
        found += [f"port {port}" for port in self._ports if not self.machine.port_is_free(port)]
        found += [f"file {name}" for name in self.deployments(self.state_root)]
        found += [trace for root in self._roots for trace in remains(self.manager, self.machine, root)]
        shutil.rmtree(self.directory)
        return found

    def _kill_tagged(self, tag: bytes) -> Iterator[int]:
        for pid in self.machine.parents():
            if tag in environment_of(pid) and is_alive(pid):
                yield pid
                self.machine.signal(pid, signal.SIGKILL)


@contextmanager
def clean(bench: Bench) -> Iterator[Bench]:
    """Use a bench for the time of a ``with`` block, and fail when anything is left on it."""
    yield bench
    leftovers = bench.leftovers()
    assert not leftovers, f"left behind: {leftovers}"


def remains(manager: Manager, machine: Machine, root: str) -> Sequence[str]:
    """Return what a manager still has of a deployment of which only the place is known."""
    driver = driver_at(manager, machine, root)
    try:
        return driver.remains()
    finally:
        driver.close(machine.deadline(1))


def driver_at(manager: Manager, machine: Machine, root: str) -> Driver:
    """Return a driver for a deployment of which only the place is known."""
    site = Site(root)
    return manager.driver(machine, Target(site.state, site.profile, site.identity))


def load(build: Build) -> Load:
    """Return the function that makes a model for the place that is chosen for it."""
    return lambda arguments: ProcessesModel(build(arguments.state), origin="of a conformance test")


def one(instance: Callable[[StateDirs], Instance]) -> Build:
    """Return a model of a single instance, called ``it``."""
    return lambda state: {"it": instance(state)}


def impatient(instance: Instance, seconds: float) -> Instance:
    """Return an instance that has another limit for its start; its manager has as long as ever to start itself."""
    return Instance(instance.pkg, **instance.attributes, start_timeout=seconds)


@contextmanager
def bystander(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has nothing to do with a deployment; it has to be alive at the end."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            assert process.poll() is None, "a process that is none of ours was touched"
        finally:
            process.kill()


def write_text(path: str, text: str) -> None:
    """Write a file of the test's own."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def read_text(path: str) -> str:
    """Return the content of a file of the test's own."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def http_body(instance: RunningInstance) -> str:
    """Ask a program over HTTP for its pid."""
    with socket.create_connection(("127.0.0.1", instance.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.makefile("rb").read().rpartition(b"\r\n")[2].decode()


def seconds_of(system: System, happening: str, name: str) -> float:
    """Return when something happened to an instance."""
    return next(event.seconds for event in system.timeline if (event.happening, event.instance) == (happening, name))
