"""A machine on which the manager launchd can be tried: with a launchd and a launchctl of the tests' own."""

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

from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Manager, always_available
from pytest_nixproc.testing.conformance.fixtures import Fixtures
from pytest_nixproc.values.machine import Facts

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
        """Those of this machine, with one more directory of programs, and without the one that is for Linux."""
        facts = Host().facts
        return replace(facts, setpriv="", base_path=(self.directory, *facts.base_path))


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
    return replace(Registry().manager("launchd"), unavailable_reason=always_available)


@contextmanager
def mac() -> Iterator[Mac]:
    """Have a machine with a launchd."""
    with launchd_of_our_own(f"user/{os.getuid()}" if os.getuid() else "system") as directory:
        machine = Mac(directory)
        yield machine
        machine.lifecycle.close()


class OnAStandIn(Fixtures):
    """Has the tests of a suite done with launchd, on such a machine."""

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
    def planning_manager(cls) -> Manager:
        """Return the manager."""
        return manager_anywhere()
