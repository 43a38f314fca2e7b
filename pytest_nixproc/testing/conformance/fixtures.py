"""Fixtures that the tests share: the machine, the manager under test, and the bench."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from inspect import getattr_static
from typing import Any, ClassVar, Final

import pytest

from pytest_nixproc._plugin.matrix import PRIVILEGED, no_accounts_reason
from pytest_nixproc._plugin.session import session_of
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model.names import names_in
from pytest_nixproc.testing.conformance.absence import skip_once
from pytest_nixproc.testing.conformance.bench import Bench, clean
from pytest_nixproc.testing.conformance.recorder import REFUSES_SOME, record_run
from pytest_nixproc.testing.programs.models import probe
from pytest_nixproc.values.units import Mode

MODES: Final[tuple[Mode, ...]] = ("foreground", "daemon")

in_both_modes = pytest.mark.parametrize("mode", MODES)
in_both_modes_at_once = pytest.mark.parametrize("mode", MODES, scope="class")
"""For tests that share what a fixture of the class has seen."""
OF_TESTS: Final = ("stopped", "started", "restarted", "reloaded", "logged", "paused", "seen")
"""The instances of a system that tests share, by what is done to them: each is left as it was."""

Note = Callable[[Iterable[str]], None]


class Fixtures:
    """Fixtures that the tests share; override those that another machine or manager needs.

    ``manager`` is the name of the manager under test, or several as ``--nixproc-manager`` takes them; empty for those
    that the option chooses. ``profile`` is who the processes run as.
    """

    manager: ClassVar[str] = ""
    profile: ClassVar[str] = "unprivileged"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test for each manager; for one that cannot run here, a single test is skipped, with the reason.

        A test that starts nothing is run for all of them. A class with a ``tested_manager`` of its own has no other.
        """
        if getattr_static(type(self), "tested_manager") is not getattr_static(Fixtures, "tested_manager"):
            return
        record_run(metafunc.config)
        skip_once(metafunc.config)
        for name in {"tested_manager", "planning_manager"} & set(metafunc.fixturenames):
            points = points_of(metafunc.config, self.manager, self.profile, starts=name == "tested_manager")
            metafunc.parametrize(name, points, indirect=True, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Machine]:
        """Return the machine to deploy on; one for all tests of the class."""
        machine = Registry().machine("host")()
        yield machine
        machine.lifecycle.close()

    @pytest.fixture(scope="class")
    @classmethod
    def tested_manager(cls, request: pytest.FixtureRequest) -> Manager:
        """Return the manager under test."""
        manager: Manager = request.param
        return manager

    @pytest.fixture(scope="class")
    @classmethod
    def planning_manager(cls, request: pytest.FixtureRequest) -> Manager:
        """Return the manager under test, which need not be able to run here."""
        manager: Manager = getattr(request, "param", None) or request.getfixturevalue("tested_manager")
        return manager

    @pytest.fixture
    def refused_some(self, request: pytest.FixtureRequest) -> Note:
        """Return a function that writes down which values of a test the manager has refused, if any."""

        def note(values: Iterable[str]) -> None:
            if listed := ", ".join(map(repr, values)):
                request.node.user_properties.append((REFUSES_SOME, f"refuses {listed}"))

        return note

    @pytest.fixture(scope="class")
    @classmethod
    def system(cls, tested_manager: Manager, machine: Machine, mode: Mode) -> Iterator[System]:
        """Return a running system that all tests of a mode share; each test uses and restores its own instances."""
        with clean(Bench(tested_manager, machine)) as bench:
            ports = {name: bench.port() for name in OF_TESTS}
            with bench.deploy(
                lambda state: {name: probe(name, state, mode, port=port) for name, port in ports.items()}
            ) as system:
                yield system

    @pytest.fixture
    def planning_bench(self, planning_manager: Manager, machine: Machine) -> Iterator[Bench]:
        """Return a bench on which nothing can be started."""
        bench = Bench(planning_manager, machine)
        yield bench
        shutil.rmtree(bench.directory)

    @pytest.fixture
    def bench(self, tested_manager: Manager, machine: Machine) -> Iterator[Bench]:
        """Return a bench; anything that a test leaves behind on it is an error."""
        with clean(Bench(tested_manager, machine)) as bench:
            yield bench


def points_of(config: pytest.Config, names: str, profile: str, *, starts: bool) -> list[Any]:
    """Return the managers to test as parameters; raises an error of collection for unknown names."""
    matrix = session_of(config).matrix
    machine = matrix.registry.machine("host")
    try:
        managers = matrix.named(names_in(names)) if names else matrix.managers()
    except NixprocError as error:
        raise pytest.Collector.CollectError(str(error)) from error
    reason = no_accounts_reason(config, machine) if profile == PRIVILEGED else ""
    return [
        pytest.param(manager, id=manager.name, marks=matrix.skip_marks(manager, machine, reason) if starts else ())
        for manager in managers
    ]
