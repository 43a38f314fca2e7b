"""What the tests share: the machine, the manager under test, and the bench."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from inspect import getattr_static
from typing import Any, ClassVar, Final

import pytest

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model.names import names_in
from pytest_nixproc.model.process import Mode
from pytest_nixproc.plugin.matrix import PRIVILEGED, obstacle_to_privileged, skip_marks
from pytest_nixproc.plugin.systems import systems_of
from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.conformance.bench import Bench, clean
from pytest_nixproc.testing.conformance.recorder import REFUSES_SOME, record_run

MODES: Final[tuple[Mode, ...]] = ("foreground", "daemon")

in_both_modes = pytest.mark.parametrize("mode", MODES)
in_both_modes_at_once = pytest.mark.parametrize("mode", MODES, scope="class")
"""For tests that share what a fixture of the class has seen."""


Note = Callable[[Iterable[str]], None]


class Fixtures:
    """What the tests share; override what another machine or manager needs.

    ``manager`` is the name of the manager under test, or several as ``--nixproc-manager`` takes them; empty for those
    that the option chooses. ``profile`` is who the processes run as.
    """

    manager: ClassVar[str] = ""
    profile: ClassVar[str] = "unprivileged"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test for each manager; those that cannot run here are skipped with the reason.

        A test that starts nothing is run for all of them. A class with a ``tested_manager`` of its own has no other.
        """
        if getattr_static(type(self), "tested_manager") is not getattr_static(Fixtures, "tested_manager"):
            return
        record_run(metafunc.config)
        for name in {"tested_manager", "drafting_manager"} & set(metafunc.fixturenames):
            points = points_of(metafunc.config, self.manager, self.profile, starts=name == "tested_manager")
            metafunc.parametrize(name, points, indirect=True, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Machine]:
        """Return the machine to deploy on; one for all tests of the class."""
        machine = Registry().machine("host")()
        yield machine
        machine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def tested_manager(cls, request: pytest.FixtureRequest) -> Manager:
        """Return the manager under test."""
        manager: Manager = request.param
        return manager

    @pytest.fixture(scope="class")
    @classmethod
    def drafting_manager(cls, request: pytest.FixtureRequest) -> Manager:
        """Return the manager under test, which need not be able to run here."""
        manager: Manager = getattr(request, "param", None) or request.getfixturevalue("tested_manager")
        return manager

    @pytest.fixture
    def refused_some(self, record_property: Callable[[str, str], None]) -> Note:
        """Return a function that writes down which values of a test the manager has refused, if any."""

        def note(values: Iterable[str]) -> None:
            if listed := ", ".join(map(repr, values)):
                record_property(REFUSES_SOME, f"refuses {listed}")

        return note

    @pytest.fixture
    def drafting_bench(self, drafting_manager: Manager, machine: Machine) -> Iterator[Bench]:
        """Return a bench on which nothing can be started."""
        bench = Bench(drafting_manager, machine)
        yield bench
        shutil.rmtree(bench.directory)

    @pytest.fixture
    def bench(self, tested_manager: Manager, machine: Machine) -> Iterator[Bench]:
        """Return a bench; what a test leaves behind on it is an error."""
        with clean(Bench(tested_manager, machine)) as bench:
            yield bench


def points_of(config: pytest.Config, names: str, profile: str, *, starts: bool) -> list[Any]:
    """Return managers as parameters; raises as pytest wants it for names that nobody has registered."""
    matrix = systems_of(config).matrix
    machine = matrix.registry.machine("host")
    try:
        managers = matrix.named(names_in(names)) if names else matrix.managers()
    except NixprocError as error:
        raise pytest.Collector.CollectError(str(error)) from error
    obstacle = obstacle_to_privileged(config, machine) if profile == PRIVILEGED else ""
    return [
        pytest.param(manager, id=manager.name, marks=skip_marks(manager, machine, obstacle) if starts else ())
        for manager in managers
    ]
