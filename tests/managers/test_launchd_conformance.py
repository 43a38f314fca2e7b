"""The manager launchd conforms, with a launchd and a launchctl of the tests' own, which refuse all they do not know."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest

from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.recovery import take_down
from pytest_nixproc.deployment.system import System
from pytest_nixproc.machines.api import Facts, Machine
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Manager, nothing_in_the_way
from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.conformance import ManagerConformance
from pytest_nixproc.testing.conformance.bench import Bench, driver_at, load
from pytest_nixproc.testing.programs.models import probe

STAND_INS = Path(__file__).parent / "stand_ins"
INTERPRETER = (sys.executable, "-I", "-S")
ADOPTING = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
from pytest_nixproc.machines.subreaper import become_subreaper
become_subreaper()
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program as what adopts all orphans below it, as launchd does."""


class Mac(Host):
    """This machine with a launchctl on its search path."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory

    @cached_property
    def facts(self) -> Facts:
        """Those of this machine, and one more directory of programs."""
        facts = Host().facts
        return replace(facts, base_path=(self.directory, *facts.base_path))


@contextmanager
def launchd_of_our_own(domain: str) -> Iterator[str]:
    """Have a launchd with one domain; yield the directory that launchctl is in. What it had to refuse is an error."""
    with tempfile.TemporaryDirectory(prefix="np") as directory:
        program = Path(directory, "launchctl")
        call = shlex.join((*INTERPRETER, str(STAND_INS / "launchctl.py"), directory))
        program.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        program.chmod(0o755)
        command = (
            *INTERPRETER,
            "-c",
            ADOPTING,
            Host().facts.package_root,
            str(STAND_INS / "launchd.py"),
            directory,
            domain,
        )
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            try:
                yield directory
            finally:
                server.terminate()
        refused = Path(directory, "refused")
        assert not refused.exists(), refused.read_text()


def manager_anywhere() -> Manager:
    """Return the manager, which does not say that it cannot run here."""
    return replace(Registry().manager("launchd"), obstacle=nothing_in_the_way)


class TestLaunchdOnAStandIn(ManagerConformance):
    """Everything that a manager has to do."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Choose no manager by option."""

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Machine]:
        """Return this machine, with a launchd."""
        with mac() as machine:
            yield machine

    @pytest.fixture(scope="class")
    @classmethod
    def tested_manager(cls) -> Manager:
        """Return the manager."""
        return manager_anywhere()

    @pytest.fixture(scope="class")
    @classmethod
    def drafting_manager(cls) -> Manager:
        """Return the manager."""
        return manager_anywhere()


@contextmanager
def mac() -> Iterator[Mac]:
    """Have a machine with a launchd."""
    with launchd_of_our_own(f"user/{os.getuid()}" if os.getuid() else "system") as directory:
        machine = Mac(directory)
        yield machine
        machine.close()


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
        assert machine.ended(pids) == set(pids)
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
