"""The manager cygrunsrv conforms, with a stand-in for cygrunsrv and the service control manager of Windows.

The stand-in is found as the real program is, by the machine's PATH. Its services are really started and stopped; it
takes down every call that it does not know.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pytest

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._recovery import take_down
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.managers.cygrunsrv import MANAGER, joined_arguments
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.conformance import Bench, ManagerConformance, driver_at, in_both_modes, load
from pytest_nixproc.testing.programs.models import probe
from pytest_nixproc.values.machine import Facts
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Mode

STAND_IN = Path(__file__).parent / "stand_ins" / "cygrunsrv.py"


class Windows(Host):
    """This machine, with a stand-in for cygrunsrv that keeps its registry in a directory."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory
        os.makedirs(f"{directory}/bin", exist_ok=True)
        os.makedirs(f"{directory}/services", exist_ok=True)
        words = shlex.join((sys.executable, "-I", "-S", str(STAND_IN), directory))
        program = Path(directory, "bin", "cygrunsrv")
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o755)

    @cached_property
    def facts(self) -> Facts:
        """What is here, with the stand-in before everything else."""
        facts = super().facts
        return replace(facts, base_path=(f"{self.directory}/bin", *facts.base_path))

    @property
    def violations(self) -> str:
        """The calls that must not be made."""
        path = Path(self.directory, "violations")
        return path.read_text() if path.exists() else ""

    @property
    def services(self) -> list[str]:
        """The services that are installed."""
        return os.listdir(f"{self.directory}/services")


@contextmanager
def windows() -> Iterator[Windows]:
    """Return a machine with the stand-in; no call may be wrong on it, and no service be left."""
    with tempfile.TemporaryDirectory(prefix="np") as directory:
        machine = Windows(directory)
        try:
            yield machine
        finally:
            machine.lifecycle.close()
        assert machine.violations == ""
        assert machine.services == []


class TestCygrunsrvOnAStandIn(ManagerConformance):
    """All of it."""

    usual_mode: ClassVar[Mode] = "foreground"

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Machine]:
        """Return the machine with the stand-in."""
        with windows() as machine:
            yield machine

    @pytest.fixture(scope="class")
    @classmethod
    def tested_manager(cls) -> Manager:
        """Return the manager."""
        return Registry().manager("cygrunsrv")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root's deployments can be passed through, and Cygwin has no root")
    @in_both_modes
    def test_secrets(self, bench: Bench, mode: Mode) -> None:
        """A launch script can be read by the service's account, so that the way to it has to be closed."""
        super().test_secrets(bench, mode)


class Finder:
    """Finds the manager, and one machine, whatever it is asked for."""

    def __init__(self, machine: Windows) -> None:
        self._machine = machine

    def manager(self, name: str) -> Manager:
        """Return a manager."""
        return Registry().manager(name)

    def machine(self, _: str) -> type[Machine]:
        """Return a machine with the same registry."""
        directory = self._machine.directory

        class Same(Windows):
            def __init__(self, *_: object) -> None:
                super().__init__(directory)

        return Same


def test_crash_is_taken_down_by_the_journal() -> None:
    """A driver made anew, from the journal alone, stops the services and removes them; those of others stay."""
    with windows() as machine:
        manager = Registry().manager("cygrunsrv")
        bench = Bench(manager, machine)
        machine.succeed("cygrunsrv --install nixproc-other-web --path /bin/sleep --args 1000")
        system = System(bench.planner())
        system.start(load(lambda state: {name: probe(name, state, "daemon") for name in ("a b", "web")}))
        pids = [system[name].pid or 0 for name in system]
        driver = driver_at(manager, machine, system.root)
        assert len(driver.remains()) == 2
        system.abandon()
        take_down(system.root, Finder(machine), Leases())
        assert machine.processes.ended(pids) == set(pids)
        assert driver.remains() == []
        machine.succeed("cygrunsrv --remove nixproc-other-web")
        assert bench.leftovers() == []


def test_services_of_a_running_system() -> None:
    """Services are named after the deployment, start by hand only, depend on each other, and say how they are."""
    with windows() as machine:
        bench = Bench(Registry().manager("cygrunsrv"), machine)
        with bench.deploy(
            lambda state: {"web": probe("web", state, dependencies=["db"]), "db": probe("db", state)}
        ) as system:
            identity = os.path.basename(system.root)
            assert machine.succeed("cygrunsrv --list").split() == [
                f"nixproc-{identity}-{name}" for name in ("db", "web")
            ]
            assert "Current State       : Running\n" in machine.succeed(f"cygrunsrv --query nixproc-{identity}-web")
            # As on Windows, what another one needs cannot be stopped.
            assert "1051" in machine.fail(f"cygrunsrv --stop nixproc-{identity}-db")
        assert machine.succeed("cygrunsrv --list") == ""
        assert bench.leftovers() == []


@pytest.mark.parametrize(
    "arguments",
    [
        "--list --verbose",
        "--path /bin/true --install x",
        "--install x --args -D",
        "--install x --path /bin/true --path /bin/false",
        "--install a/b --path /bin/true",
        "--install x --path /bin/true --type never",
        "--install x --path /bin/true --env X",
        "--install x --path /bin/true --termsig NONE",
        "--install x --path /bin/true --user somebody",
        f"--install x --path /bin/true {'--dep y ' * 17}",
        "--start x --stop x",
        "",
    ],
)
def test_stand_in_is_strict(arguments: str) -> None:
    """A call that cygrunsrv would not take, or that nobody has thought of, is noted, and fails."""
    with tempfile.TemporaryDirectory(prefix="np") as directory:
        machine = Windows(directory)
        status, _ = machine.execute(f"cygrunsrv {arguments}")
        assert (status, machine.services) == (99, [])
        assert machine.violations
        machine.lifecycle.close()


@pytest.mark.parametrize("words", [["a", "b c", "", "-D"], ["it's", '"', "x'y z", 'say "hi"', "a\\b"], ["'", '"a b']])
def test_quoted_arguments_are_split_into_themselves(words: list[str]) -> None:
    """What cygrunsrv makes of the text for ``--args`` is what it was made of."""
    with windows() as machine:
        out = f"{machine.directory}/out"
        model = ProcessesModel({"x": Instance(create_managed_process(name="x", process="/x"))})
        show = [sys.executable, "-I", "-S", "-c", "import sys; print(sys.argv[1:])"]
        text = joined_arguments(MANAGER.launch("x", model, Target(StateDirs.under(), "/d")), [*show[1:], *words])
        call = ["cygrunsrv", "--install", "x", "--path", show[0], "--args", text, "--stdout", out]
        machine.succeed(call)
        machine.execute(["cygrunsrv", "--start", "x"])
        machine.wait_until_succeeds(["test", "-s", out])
        assert Path(out).read_text() == f"{words!r}\n"
        machine.succeed("cygrunsrv --remove x")
