"""What the disnix driver has Dysnomia do, and what it does before and after, or without it."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.managers.daemons import record_of
from pytest_nixproc.managers.disnix import MANAGER
from pytest_nixproc.managers.disnix.driver import DisnixDriver
from pytest_nixproc.managers.disnix.dysnomia import ACTIVATE
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

SECONDS = 10.0
DYSNOMIA = "/usr/local/bin/dysnomia"


class Components:
    """A machine with one component, which is activated by a shell, or by Dysnomia where that is installed."""

    def __init__(self, target: Target, *, installed: bool) -> None:
        process = create_managed_process(name="web", foreground_process="/bin/web")
        self.unit: Unit = MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)
        self.machine = FakeMachine()
        self.driver = DisnixDriver(self.machine, target)
        self.record = record_of("web", target)
        self.pid_file = str(self.unit.pid_file)
        self.calls: list[tuple[str, ...]] = []
        self.pid_file_at_call: list[bytes | None] = []
        self.status = 0
        self.machine.processes.program(self.machine.facts.shell, self._run)
        self.machine.processes.program(DYSNOMIA, self._run)
        if installed:
            self.machine.files.write(DYSNOMIA, "")

    def _run(self, machine: FakeMachine, process: FakeProcess) -> None:
        content = machine.files.contents.get(self.pid_file)
        self.calls.append(process.command.argv)
        self.pid_file_at_call.append(content)
        if "deactivate" in process.command.argv:
            if content:
                machine.processes.end(int(content))
        elif self.status == 0:
            machine.files.write(self.pid_file, f"{machine.processes.spawn(Spawn(('/bin/web',)))}\n")
        machine.processes.end(process.pid, self.status)

    def activate(self) -> dict[str, str]:
        """Have the driver start the unit."""
        return self.driver.activate([self.unit], self.machine.deadline(SECONDS))

    def deactivate(self) -> None:
        """Have the driver stop the unit."""
        self.driver.deactivate([self.unit], self.machine.deadline(SECONDS))

    @property
    def web(self) -> FakeProcess:
        """The program that was started last."""
        return [process for process in self.machine.processes.by_pid.values() if process.command.argv == ("/bin/web",)][
            -1
        ]


@pytest.fixture
def components(target: Target) -> Components:
    """Return a machine without Dysnomia."""
    return Components(target, installed=False)


@pytest.fixture
def with_dysnomia(target: Target) -> Components:
    """Return a machine with Dysnomia."""
    return Components(target, installed=True)


def operation(name: str) -> tuple[str, ...]:
    """Return how Dysnomia is called."""
    component, settings = "/srv/profile/components/web", "/srv/profile/etc/dysnomia/containers/process"
    return DYSNOMIA, "--operation", name, "--component", component, "--container", settings


def test_dysnomia_is_used(with_dysnomia: Components) -> None:
    """Where it is installed, Dysnomia activates and deactivates; what it remembers is the deployment's own."""
    assert with_dysnomia.activate() == {}
    environment = with_dysnomia.machine.processes.by_pid[
        min(with_dysnomia.machine.processes.by_pid)
    ].command.environment
    assert environment["DYSNOMIA_STATEDIR"] == "/srv/state/lib/dysnomia"
    with_dysnomia.deactivate()
    assert with_dysnomia.calls == [operation("activate"), operation("deactivate")]
    assert not {with_dysnomia.pid_file, with_dysnomia.record} & with_dysnomia.machine.files.contents.keys()


def test_dysnomia_cannot_be_told_blanks(target: Target) -> None:
    """Where Dysnomia would take a path apart, the driver does without it."""
    components = Components(replace(target, directory="/srv/a b"), installed=True)
    assert components.activate() == {}
    assert [call[0] for call in components.calls] == ["/bin/sh"]


def test_without_dysnomia(components: Components) -> None:
    """Elsewhere a shell runs what the component names, and the driver sends SIGTERM by itself."""
    assert components.activate() == {}
    (call,) = components.calls
    assert call == ("/bin/sh", "-c", ACTIVATE, "sh", "/srv/profile/components/web/etc/dysnomia/process/web")
    components.deactivate()
    assert components.web.received == [signal.SIGTERM]


@pytest.mark.parametrize("content", ["1\n", "none\n", ""])
def test_pid_file_of_an_earlier_process(with_dysnomia: Components, content: str) -> None:
    """What is left in a PID file is gone before Dysnomia could take it for a process that runs."""
    with_dysnomia.machine.files.write(with_dysnomia.pid_file, content)
    with_dysnomia.activate()
    assert with_dysnomia.pid_file_at_call == [None]


def test_nobody_else_is_ended(with_dysnomia: Components) -> None:
    """Dysnomia is not shown the PID file of a process that was not started by us: it would end whoever it names."""
    stranger = with_dysnomia.machine.processes.spawn(Spawn(("/bin/stranger",)))
    with_dysnomia.machine.files.write(with_dysnomia.pid_file, f"{stranger}\n")
    with_dysnomia.deactivate()
    assert with_dysnomia.pid_file_at_call == [None]
    assert with_dysnomia.machine.processes.by_pid[stranger].runs


def test_what_runs_is_left_alone(components: Components) -> None:
    """A component that is active is not activated again."""
    components.activate()
    components.activate()
    assert len(components.calls) == 1


def test_failure_is_told(components: Components) -> None:
    """A component whose process fails did not start, and nothing says that it did."""
    components.status = 5
    (problem,) = components.activate().values()
    assert problem.startswith("its component ended with status 5: /bin/sh ")
    assert components.record not in components.machine.files.contents


def test_start_is_on_record_before_it_happens(components: Components) -> None:
    """Whoever takes over in the middle of a start knows that there may be a process."""
    seen: list[bool] = []

    def look(machine: FakeMachine, process: FakeProcess) -> None:
        seen.append(components.record in machine.files.contents)
        machine.processes.end(process.pid)

    components.machine.processes.program(components.machine.facts.shell, look)
    components.activate()
    assert seen == [True]


def test_late_pid_file_identifies(components: Components) -> None:
    """A daemon that writes its PID file late is identified when that is asked for, and stopped like any other."""
    components.activate()
    pid = int(components.machine.files.contents.pop(components.pid_file))
    components.machine.files.write(components.record, "")
    daemon = replace(components.unit, mode="daemon")
    assert components.driver.unmet(daemon) == f"PID file {components.pid_file} does not exist"
    components.machine.files.write(components.pid_file, f"{pid}\n")
    assert components.driver.unmet(daemon) == ""
    assert components.machine.files.contents[components.record] == f"{pid} 0.00\n".encode()


def test_daemon_is_not_ready_before_its_starter_has_ended(target: Target) -> None:
    """While a component is being activated, a daemon is not ready, whatever its PID file says."""
    process = create_managed_process(name="web", daemon="/bin/webd")
    unit = MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)
    machine, seen = FakeMachine(), []
    driver = DisnixDriver(machine, target)

    def start(machine: FakeMachine, process: FakeProcess) -> None:
        machine.files.write(str(unit.pid_file), f"{machine.processes.spawn(Spawn(('/bin/webd',)))}\n")
        seen.append(driver.unmet(unit))
        machine.processes.end(process.pid)

    machine.processes.program(machine.facts.shell, start)
    assert driver.activate([unit], machine.deadline(SECONDS)) == {}
    assert seen == ["its component is being activated"]
    assert driver.unmet(unit) == ""


def test_reload(components: Components) -> None:
    """A reload is SIGHUP for what runs, and an error for what does not."""
    components.activate()
    components.web.ignored = frozenset({signal.SIGHUP})
    components.driver.reload(components.unit, components.machine.deadline(SECONDS))
    assert components.web.received == [signal.SIGHUP]
    components.machine.processes.end(components.web.pid)
    with pytest.raises(CommandFailed, match="web: it does not run"):
        components.driver.reload(components.unit, components.machine.deadline(SECONDS))


def test_process_0_is_nobody(components: Components) -> None:
    """A PID file that names process 0 leads to no process: a signal would reach all of our own group."""
    components.activate()
    components.machine.files.write(components.record, "")
    components.machine.files.write(components.pid_file, "0\n")
    assert not components.driver.status([components.unit])["web"].running
    with pytest.raises(CommandFailed, match="web: it does not run"):
        components.driver.reload(components.unit, components.machine.deadline(SECONDS))
    components.deactivate()
    assert components.web.received == []
