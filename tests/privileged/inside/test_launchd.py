"""The manager launchd switches users, with a launchd of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.testing.privileged import PrivilegedConformance
from tests.managers.mac import mac, manager_anywhere


class TestLaunchdOnAStandIn(PrivilegedConformance):
    """All of it."""

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
