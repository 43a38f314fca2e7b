"""What the unit tests share: a place of deployment that is the same everywhere, and a manager that manages nothing.

Its units are scripted processes of the fake machine.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._system.system import System
from pytest_nixproc.checks.ends import nixproc_checks as end_checks
from pytest_nixproc.checks.environment import nixproc_checks as place_checks
from pytest_nixproc.checks.leaks import nixproc_checks as leak_checks
from pytest_nixproc.checks.live import nixproc_checks as live_checks
from pytest_nixproc.checks.static import nixproc_checks as static_checks
from pytest_nixproc.errors import MachineError, Unreachable
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.api import Capabilities, Driver, Generator, Manager
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.values.commands import Spawn, describe_status
from pytest_nixproc.values.machine import Listener
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Link, Status, Unit

MakeModel = Callable[..., ProcessesModel]


@dataclass
class Orders:
    """What drivers are asked, and how they are to answer: the verbs and units that fail, and what they leave."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    is_out_of_reach: bool = False
    refusals: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    restarts: dict[str, float] = field(default_factory=dict)
    """Seconds after which a unit is started again that has ended, by its name."""


class FakeGenerator(Generator):
    """Generates one file with a process's arguments, and one link."""

    def generate(self, launch: Launch) -> Unit:
        """Return a unit whose name is not its instance's, so that nobody can mistake one for the other."""
        name = f"unit-{launch.name}"
        files = (File(f"etc/{name}", " ".join(launch.command.args)),)
        links = (Link(f"on/{name}", f"../etc/{name}"),)
        return Unit(name, "foreground", launch.log_file, None, files, links, launch.key, launch.program)


class FakeDriver(Driver):
    """Runs each unit as one process of the machine, the program ``/fake/NAME``; notes what it was asked."""

    def __init__(self, machine: FakeMachine, target: Target, orders: Orders) -> None:
        super().__init__(machine, target)
        self.fake = machine
        self.pids: dict[str, int] = {}
        self.forwarded: list[Listener] = []
        self.orders = orders

    def note(self, verb: str, *units: Unit) -> None:
        """Note what was asked for; fail if it is to fail."""
        self.orders.asked.append((verb, " ".join(unit.name.removeprefix("unit-") for unit in units)))
        if self.orders.is_out_of_reach:
            raise Unreachable("the manager does not answer")
        if verb in self.orders.broken:
            raise MachineError(f"{verb} is broken")

    def open(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Note it."""
        self.note("open")

    def close(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Note it."""
        self.note("close")

    def remains(self) -> Sequence[str]:
        """Return what is to be left."""
        return self.orders.left

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:  # noqa: ARG002
        """Note it."""
        self.note("refresh", *new)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:  # noqa: ARG002
        """Spawn the programs, except those that are to be refused."""
        self.note("activate", *units)
        for unit in units:
            self._spawn(unit)
        refusals = self.orders.refusals
        return {unit.name: refusals[unit.name] for unit in units if unit.name in refusals}

    def _spawn(self, unit: Unit) -> None:
        name = unit.name.removeprefix("unit-")
        tags = {**self.target.tags, "NIXPROC_INSTANCE": name}
        self.pids[unit.name] = self.machine.processes.spawn(Spawn((f"/fake/{name}",), tags, unit.log_file))

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Send SIGTERM, and wait for the end or the deadline."""
        self.note("deactivate", *units)
        pids = [self.pids[unit.name] for unit in units if unit.name in self.pids]
        for pid in pids:
            self.machine.processes.signal(pid, signal.SIGTERM)
        self.machine.processes.wait_ended(pids, deadline)

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002
        """Note it."""
        self.note("reload", unit)

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Look at the processes."""
        return {unit.name: self._status(unit) for unit in units}

    def listeners(self, statuses: Mapping[str, Status]) -> Sequence[Listener]:  # noqa: ARG002
        """Return the ports that are to be forwarded."""
        return self.forwarded

    def _status(self, unit: Unit) -> Status:
        pid = self.pids.get(unit.name)
        if pid is None:
            return Status(running=False, text="not started")
        if not self.machine.processes.ended([pid]):
            return Status(running=True, pid=pid, text=f"runs, pid {pid}")
        seconds = self.orders.restarts.pop(unit.name, None)
        if seconds is not None:
            self.pids.pop(unit.name)
            self.fake.clock.after(seconds, lambda: self._spawn(unit))
            return Status(running=False, text="is started again soon")
        status = self.machine.processes.exit_status(pid)
        text = "" if status is None else describe_status(status)
        return Status(running=False, has_ended=True, exit_status=status, text=text)


@pytest.fixture
def state() -> StateDirs:
    """Return state directories that nobody makes."""
    return StateDirs.under("/srv/state")


@pytest.fixture
def target(state: StateDirs) -> Target:
    """Return a place of deployment that nobody makes."""
    return Target(state=state, directory="/srv/profile", tags={"NIXPROC_DEPLOYMENT": "/srv"}, stop_seconds=5)


@pytest.fixture
def machine() -> FakeMachine:
    """Return a machine with nothing on it."""
    return FakeMachine()


@pytest.fixture
def orders() -> Orders:
    """Return what drivers are asked, and how they answer."""
    return Orders()


@pytest.fixture
def driver(machine: FakeMachine, target: Target, orders: Orders) -> FakeDriver:
    """Return a driver for the machine."""
    return FakeDriver(machine, target, orders)


@pytest.fixture
def manager(orders: Orders) -> Manager:
    """Return the manager of these tests."""
    capabilities = Capabilities(prefers="foreground")

    def driver_of(machine: Machine, target: Target) -> FakeDriver:
        assert isinstance(machine, FakeMachine)
        return FakeDriver(machine, target, orders)

    return Manager("fake", FakeGenerator, driver_of, capabilities)


@pytest.fixture
def make_model() -> MakeModel:
    """Return a function that makes a model of instances: dependencies, arguments and attributes of each by name."""

    def make(**instances: dict[str, Any]) -> ProcessesModel:
        return ProcessesModel({name: make_instance(name, **entry) for name, entry in instances.items()})

    return make


def make_instance(name: str, *, needs: Sequence[str] = (), args: Sequence[str] = (), **attributes: Any) -> Instance:
    """Return an instance of a process that the fake driver can run."""
    known = ("post_install", "pid_file", "initialize", "process", "directories", "files")
    parameters = {"process": f"/fake/{name}"} | {key: attributes.pop(key) for key in known if key in attributes}
    process = create_managed_process(name=name, dependencies=needs, args=args, **parameters)
    return Instance(process, **attributes)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings that keep everything below the test's directory."""
    return Settings(state_root=str(tmp_path / "root"), start_seconds=30, stop_seconds=5)


@pytest.fixture
def planner(manager: Manager, machine: FakeMachine, settings: Settings) -> Planner:
    """Return a planner with the rules that are shipped."""
    rules = [*static_checks(), *place_checks(), *live_checks(), *end_checks(), *leak_checks()]
    return Planner(manager, machine, rules, settings)


@pytest.fixture
def system(planner: Planner, tmp_path: Path) -> System:
    """Return a system that is not deployed yet; its leases are its own."""
    return System(planner, Leases(str(tmp_path / "leases" / "here")))


@pytest.fixture
def units(manager: Manager, target: Target) -> Callable[..., dict[str, Unit]]:
    """Return a function that generates the units of a model by instance."""

    def generate(model: ProcessesModel) -> dict[str, Unit]:
        return {key: manager.unit(key, model, target) for key in model}

    return generate
