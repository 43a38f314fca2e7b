"""The manager launchd over a launchd of the tests' own: all of the suite, without macOS."""

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

from pytest_nixproc.machines.api import Facts, Machine
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import nothing_in_the_way
from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.conformance import ManagerConformance

LAUNCHD = Path(__file__).with_name("fake_launchd.py")
LAUNCHCTL = Path(__file__).with_name("fake_launchctl.py")
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
        call = shlex.join((*INTERPRETER, str(LAUNCHCTL), directory))
        program.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        program.chmod(0o755)
        command = (*INTERPRETER, "-c", ADOPTING, Host().facts.package_root, str(LAUNCHD), directory, domain)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            try:
                yield directory
            finally:
                server.terminate()
        refused = Path(directory, "refused")
        assert not refused.exists(), refused.read_text()


class TestLaunchd(ManagerConformance):
    """Everything that a manager has to do."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test, although the manager says that it cannot run here."""
        if "tested_manager" in metafunc.fixturenames:
            manager = replace(Registry().manager("launchd"), obstacle=nothing_in_the_way)
            metafunc.parametrize("tested_manager", [pytest.param(manager, id="fake")], indirect=True, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Machine]:
        """Return this machine, with a launchd."""
        domain = f"user/{os.getuid()}" if os.getuid() else "system"
        with launchd_of_our_own(domain) as directory:
            machine = Mac(directory)
            yield machine
            machine.close()
