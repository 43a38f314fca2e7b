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
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest

from pytest_nixproc.machines.api import Facts, Machine
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.conformance import ManagerConformance

STAND_IN = Path(__file__).parent / "stand_ins" / "cygrunsrv.py"


class Windows(Host):
    """This machine, with a stand-in for cygrunsrv that keeps its registry in a directory."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory
        os.makedirs(f"{directory}/bin")
        os.mkdir(f"{directory}/services")
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


class TestCygrunsrvOnAStandIn(ManagerConformance):
    """All of it."""

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Machine]:
        """Return the machine with the stand-in; no service may be left on it."""
        with tempfile.TemporaryDirectory(prefix="np") as directory:
            machine = Windows(directory)
            yield machine
            machine.close()
            assert machine.violations == ""
            assert machine.services == []

    @pytest.fixture(scope="class")
    @classmethod
    def tested_manager(cls) -> Manager:
        """Return the manager."""
        return Registry().manager("cygrunsrv")
