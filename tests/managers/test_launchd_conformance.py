"""The manager launchd conforms, with a launchd and a launchctl of the tests' own, which refuse all they do not know."""

from __future__ import annotations

import subprocess
from typing import ClassVar

import pytest

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._recovery import take_down
from pytest_nixproc._system.system import System
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.testing.conformance import ManagerConformance
from pytest_nixproc.testing.conformance.bench import Bench, driver_at, load
from pytest_nixproc.testing.programs.models import probe
from pytest_nixproc.values.units import Mode
from tests.managers.mac import Mac, OnAStandIn, launchd_of_our_own, mac, manager_anywhere


class TestLaunchdOnAStandIn(OnAStandIn, ManagerConformance):
    """Everything that a manager has to do."""

    usual_mode: ClassVar[Mode] = "foreground"


def launchctl(directory: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run launchctl by hand."""
    return subprocess.run([f"{directory}/launchctl", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ["load", "-w", "/a.plist"],
        ["bootstrap", "gui/0", "/a.plist"],
        ["bootstrap", "user/7"],
        ["kickstart", "-k", "user/7/a"],
        ["kill", "SIGNONE", "user/7/a"],
        [],
    ],
)
def test_what_launchctl_does_not_know_fails_the_test(words: list[str]) -> None:
    """A call that the stand-in does not know is an error at the end, even where its status was not looked at."""
    with pytest.raises(AssertionError, match=f"launchctl {' '.join(words)}: "), launchd_of_our_own("user/7") as place:
        assert launchctl(place, *words).returncode != 0


def test_crash_is_taken_down_by_the_journal() -> None:
    """A driver made anew, from the journal alone, finds the jobs and boots them out; nothing of them remains."""
    with mac() as machine:
        manager = manager_anywhere()
        bench = Bench(manager, machine)
        system = System(bench.planner())
        system.start(load(lambda state: {name: probe(name, state, "daemon") for name in ("a b", "web")}))
        pids = [system[name].pid or 0 for name in system]
        driver = driver_at(manager, machine, system.root)
        assert len(driver.remains()) == 2
        system.abandon()
        take_down(system.root, Finder(manager, machine), Leases())
        assert machine.processes.ended(pids) == set(pids)
        assert driver.remains() == []
        assert bench.leftovers() == []


class Finder:
    """Finds one manager and one machine, whatever it is asked for."""

    def __init__(self, manager: Manager, machine: Mac) -> None:
        self._manager = manager
        self._machine = machine

    def manager(self, _: str) -> Manager:
        """Return the manager."""
        return self._manager

    def machine(self, _: str) -> type[Machine]:
        """Return a machine with the same launchd."""
        directory = self._machine.directory

        class Same(Mac):
            def __init__(self, *_: object) -> None:
                super().__init__(directory)

        return Same
