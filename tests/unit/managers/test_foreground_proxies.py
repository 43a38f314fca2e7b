"""What drivers make of the note of a foreground proxy about its daemon."""

from __future__ import annotations

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.managers.api import Driver, daemon_of
from pytest_nixproc.managers.launch import note_of
from pytest_nixproc.managers.systemd import generator as systemd
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

NOTES = {
    "supervisord": note_of,
    "s6-rc": note_of,
    "launchd": note_of,
    "systemd": systemd.note_of,
}
"""Where the note of a proxy, or of an escort, is: its path by the name of a process."""


class Deployed:
    """A daemon that has been started by a manager, whose PID file names it."""

    def __init__(self, name: str, target: Target) -> None:
        manager = Registry().managers[name]
        process = create_managed_process(name="web", daemon="/bin/webd")
        self.unit: Unit = manager.unit("web", ProcessesModel({"web": Instance(process)}), target)
        self.machine = FakeMachine()
        self.driver: Driver = manager.driver(self.machine, target)
        self.note = NOTES[name]("web", target)
        self.pid = self.machine.processes.spawn(Spawn(("/bin/webd",)))
        self.machine.files.write(str(self.unit.pid_file), f"{self.pid}\n")


@pytest.fixture(params=NOTES)
def deployed(request: pytest.FixtureRequest, target: Target) -> Deployed:
    """Return a daemon of each manager that has a proxy."""
    return Deployed(request.param, target)


def test_daemon_is_not_ready_while_its_proxy_does_not_know_it(deployed: Deployed) -> None:
    """With an empty note, the starter may still run, whatever the PID file says."""
    deployed.machine.files.write(deployed.note, "")
    assert "waits for the end of its starter" in deployed.driver.unmet(deployed.unit)
    deployed.machine.files.write(deployed.note, f"{deployed.pid}\n")
    assert deployed.driver.unmet(deployed.unit) == ""


def test_daemon_without_a_proxy(deployed: Deployed) -> None:
    """Where overrides have replaced the proxy, there is no note, and the PID file counts."""
    assert deployed.driver.unmet(deployed.unit) == ""


def test_daemon_that_has_ended(deployed: Deployed) -> None:
    """A PID file that names a process which has ended is quoted, and that is said."""
    deployed.machine.files.write(deployed.note, f"{deployed.pid}\n")
    deployed.machine.files.write(str(deployed.unit.pid_file), "4711 web\n")
    said = f"PID file {deployed.unit.pid_file} holds '4711 web', and that process has ended"
    assert deployed.driver.unmet(deployed.unit) == said


def test_note_says_which_process_the_daemon_is(target: Target) -> None:
    """The daemon behind a proxy is the one of the note, and nobody while the note is empty."""
    deployed = Deployed("supervisord", target)
    found = []
    for note in (None, "", "4711\n"):
        if note is not None:
            deployed.machine.files.write(deployed.note, note)
        found.append(daemon_of(deployed.unit, deployed.machine, target))
    assert found == [deployed.pid, None, 4711]
