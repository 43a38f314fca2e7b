"""The recorder of test results; each process of pytest, such as a worker, records the tests that it runs."""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from pytest_nixproc._plugin import options
from pytest_nixproc._registry import Registry
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.testing.conformance.results import (
    FAIL,
    PARTLY,
    PASS,
    REFUSED,
    Outcome,
    Results,
    features_of,
    subject_of,
)

NAME: Final = "nixproc-conformance"
REFUSES: Final = "nixproc_refuses"
REFUSES_SOME: Final = "nixproc_refuses_some"


def record_run(config: pytest.Config) -> None:
    """Record the results of this process's tests, if the options ask for it."""
    directory = options.read(config, "conformance-results")
    if directory and not config.pluginmanager.has_plugin(NAME):
        path = os.path.abspath(os.path.join(config.invocation_params.dir, directory))
        config.pluginmanager.register(Recorder(path), NAME)


def test_of(item: pytest.Item) -> tuple[Manager, str] | None:
    """Return the manager that a test is run for, and the name of the test in results."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    manager = parameters.get("tested_manager") or parameters.get("planning_manager")
    if not isinstance(manager, Manager) or not isinstance(item, pytest.Function) or item.cls is None:
        return None
    name, _, variant = item.name.partition("[")
    others = variant.removesuffix("]").replace(manager.name, "", 1).strip("-")
    return manager, f"{subject_of(item.cls, name).__name__}.{name}{f'[{others}]' if others else ''}"


def noted_outcome(item: pytest.Item) -> Outcome:
    """Return the outcome of a test that has not failed: the refusal that is noted in its properties, or a pass."""
    said = dict(item.user_properties)
    for outcome, place in ((REFUSED, REFUSES), (PARTLY, REFUSES_SOME)):
        if place in said:
            return Outcome(outcome, str(said[place]))
    return Outcome(PASS)


class Recorder:
    """The plugin of pytest that records results; the workers of pytest-xdist write into the same files in turn."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.findings: dict[str, dict[str, Outcome]] = defaultdict(dict)
        self.absent: dict[str, str] = {}
        self.subjects: set[type[object]] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Record the outcome of each phase of a test."""
        report = yield
        if found := test_of(item):
            manager, test = found
            assert isinstance(item, pytest.Function), "nothing else has a name in results"
            self.subjects.add(subject_of(item.cls, item.name.partition("[")[0]))
            self.absent.setdefault(manager.name, manager.unavailable_reason(Registry().machine("host")))
            findings = self.findings[manager.name]
            if report.failed:
                findings[test] = Outcome(FAIL)
            elif report.when == "call" and report.passed:
                findings[test] = noted_outcome(item)
            elif report.when == "call":
                # It has skipped itself: the manager refuses what it would look at.
                assert isinstance(report.longrepr, tuple), "a skip says where and why"
                findings[test] = Outcome(REFUSED, str(report.longrepr[2]).removeprefix("Skipped: "))
        return report

    def pytest_sessionfinish(self) -> None:
        """Write the files of results."""
        features = features_of(self.subjects)
        with locked(self.directory):
            for name, findings in self.findings.items():
                path = os.path.join(self.directory, f"{name}.json")
                Results.read(path).with_run(Results(name, self.absent[name], findings), features).write(path)


@contextmanager
def locked(directory: str) -> Iterator[None]:
    """Keep the other processes of a run out of a directory, which is made if there is none."""
    os.makedirs(directory, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
