"""What the tests share: the machine, the manager under test, and the bench."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import pytest

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model.process import Mode
from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.conformance.bench import Bench

MODES: Final[tuple[Mode, ...]] = ("foreground", "daemon")

in_both_modes = pytest.mark.parametrize("mode", MODES)


class Fixtures:
    """What the tests share; override what another machine or manager needs."""

    manager: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Machine]:
        """Return the machine to deploy on; one for all tests of the class."""
        machine = Registry().machine("host")()
        yield machine
        machine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def tested_manager(cls, machine: Machine) -> Manager:
        """Return the manager under test, if it can run here."""
        manager = Registry().manager(cls.manager)
        if obstacle := manager.obstacle(type(machine)):
            pytest.skip(f"{manager.name} cannot run here: {obstacle}")
        return manager

    @pytest.fixture
    def bench(self, tested_manager: Manager, machine: Machine) -> Iterator[Bench]:
        """Return a bench; what a test leaves behind on it is an error."""
        bench = Bench(tested_manager, machine)
        yield bench
        leftovers = bench.leftovers()
        assert not leftovers, f"left behind: {leftovers}"
