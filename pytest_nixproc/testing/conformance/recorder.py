"""Writes down what a run finds, in each process of pytest for its own tests."""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from pytest_nixproc.managers.api import Manager
from pytest_nixproc.plugin import options
from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.conformance.results import (
    FAIL,
    PARTLY,
    PASS,
    REFUSED,
    Finding,
    Results,
    features,
    subject_of,
)

NAME: Final = "nixproc-conformance"
REFUSES: Final = "nixproc_refuses"
REFUSES_SOME: Final = "nixproc_refuses_some"


def record_run(config: pytest.Config) -> None:
    """Have the tests of this process recorded, if that is asked for."""
    directory = options.read(config, "conformance-results")
    if directory and not config.pluginmanager.has_plugin(NAME):
        path = os.path.abspath(os.path.join(config.invocation_params.dir, directory))
        config.pluginmanager.register(Recorder(path), NAME)


def test_of(item: pytest.Item) -> tuple[Manager, str] | None:
    """Return the manager that a test is run for, and what the test is called in results."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    manager = parameters.get("tested_manager") or parameters.get("drafting_manager")
    if not isinstance(manager, Manager) or not isinstance(item, pytest.Function) or item.cls is None:
        return None
    name, _, variant = item.name.partition("[")
    others = variant.removesuffix("]").replace(manager.name, "", 1).strip("-")
    return manager, f"{subject_of(item.cls, name)}.{name}{f'[{others}]' if others else ''}"


def said_by(item: pytest.Item) -> Finding:
    """Return what a test that has not failed says of itself."""
    said = dict(item.user_properties)
    for outcome, place in ((REFUSED, REFUSES), (PARTLY, REFUSES_SOME)):
        if place in said:
            return Finding(outcome, str(said[place]))
    return Finding(PASS)


def reason_of_skip(report: pytest.TestReport) -> str:
    """Return why a test has skipped itself: a manager refuses what it would look at."""
    assert isinstance(report.longrepr, tuple)
    return str(report.longrepr[2]).removeprefix("Skipped: ")


class Recorder:
    """A plugin of pytest; the processes of pytest-xdist write into the same files, one after the other."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.findings: dict[str, dict[str, Finding]] = defaultdict(dict)
        self.absent: dict[str, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Take in what each phase of a test says."""
        report = yield
        if found := test_of(item):
            manager, test = found
            self.absent.setdefault(manager.name, manager.obstacle(Registry().machine("host")))
            findings = self.findings[manager.name]
            if report.failed:
                findings[test] = Finding(FAIL)
            elif report.when == "call":
                findings[test] = said_by(item) if report.passed else Finding(REFUSED, reason_of_skip(report))
        return report

    def pytest_sessionfinish(self) -> None:
        """Write the files."""
        tests = {feature.key for feature in features()}
        with locked(self.directory):
            for name, findings in self.findings.items():
                path = os.path.join(self.directory, f"{name}.json")
                Results.read(path).with_run(Results(name, self.absent[name], findings), tests).write(path)


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
