"""What a run of the suite has found, for each manager a file; and the tables that are made of these files.

With ``--nixproc-conformance-results=DIR``, a run writes ``DIR/NAME.json`` for each of its managers, or brings it up to
date with the tests that were run. ``python -m pytest_nixproc.testing.conformance DIR`` prints the tables.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from pytest_nixproc.model.process import ManagedProcess

PASS: Final = "pass"  # noqa: S105 - an outcome
FAIL: Final = "FAIL"
REFUSED: Final = "refused"
PARTLY: Final = "partly"
ABSENT: Final = "cannot run here"
NOT_RUN: Final = "not run"

PARAMETER_TEST: Final = "Declarations.test_parameter"
"""The test that has a table of its own."""

RANKS: Final = (FAIL, NOT_RUN, REFUSED, PARTLY, PASS)
"""What the variants of one feature have come to, from the worst: the feature has come to that."""


@dataclass(frozen=True)
class Feature:
    """One test of the suite: what it is about, and what must hold."""

    subject: str
    test: str
    asserts: str

    @property
    def title(self) -> str:
        """The test's name for people."""
        return self.test.removeprefix("test_").replace("_", " ")

    @property
    def key(self) -> str:
        """What the test is called in results."""
        return f"{self.subject}.{self.test}"


@dataclass(frozen=True)
class Finding:
    """What one variant of a test has come to, and why."""

    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Results:
    """What one manager has passed; ``absent`` says why it could not be tried, ``findings`` are those by test."""

    manager: str
    absent: str = ""
    findings: Mapping[str, Finding] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str) -> Self:
        """Read a file of results; there are none without one."""
        name = os.path.basename(path).removesuffix(".json")
        if not os.path.exists(path):
            return cls(name)
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
        findings = {test: Finding(*finding) for test, finding in facts["findings"].items()}
        return cls(name, facts["absent"], findings)

    def write(self, path: str) -> None:
        """Write them, one test a line."""
        findings = {test: [found.outcome, found.reason] for test, found in sorted(self.findings.items())}
        lines = ",\n".join(f"    {json.dumps(test)}: {json.dumps(found)}" for test, found in findings.items())
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'{{\n  "absent": {json.dumps(self.absent)},\n  "findings": {{\n{lines}\n  }}\n}}\n')

    def with_run(self, run: Results, tests: Collection[str]) -> Results:
        """Return them with those of a run; ``tests`` are all that the suite has, others are forgotten.

        What has been found where the manager can run stays, when it cannot where the run was.
        """
        stays = run.absent and self.findings and not self.absent
        findings = {test: found for test, found in {**self.findings, **run.findings}.items() if base(test) in tests}
        return replace(self, absent="" if stays else run.absent, findings=findings)

    def of(self, feature: Feature) -> Finding:
        """Return what a feature has come to: the worst of its variants, with all of their reasons."""
        found = [finding for test, finding in self.findings.items() if base(test) == feature.key]
        if not found:
            return Finding(ABSENT if self.absent else NOT_RUN, self.absent)
        outcome = min((finding.outcome for finding in found), key=RANKS.index)
        return Finding(outcome, "; ".join(dict.fromkeys(finding.reason for finding in found if finding.reason)))


def base(test: str) -> str:
    """Return the test of which a result is one variant."""
    return test.partition("[")[0]


def subjects() -> Iterator[type[Any]]:
    """Yield the classes that hold the suite's tests, in the order in which a manager meets them."""
    from pytest_nixproc.testing.conformance import ManagerConformance
    from pytest_nixproc.testing.privileged import PrivilegedConformance

    yield from ManagerConformance.__bases__
    yield PrivilegedConformance


def features() -> list[Feature]:
    """Return what the suite looks at."""
    return [
        Feature(kind.__name__, name, inspect.getdoc(test) or "")
        for kind in subjects()
        for name, test in vars(kind).items()
        if name.startswith("test_")
    ]


def subject_of(kind: type[Any], test: str) -> str:
    """Return the subject that a test class has a test from."""
    return next(parent.__name__ for parent in kind.__mro__ if test in vars(parent))


def read_all(directory: str) -> list[Results]:
    """Return the results of each manager that has any, in the order of their names."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    return [Results.read(os.path.join(directory, name)) for name in names]


def rows(results: Sequence[Results]) -> Iterator[tuple[str, ...]]:
    """Yield the table: managers across, features down; the first row is the head."""
    yield "about", "feature", "what must hold", *(found.manager for found in results)
    for feature in features():
        about = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", feature.subject.removesuffix("Conformance")).lower()
        asserts = feature.asserts.splitlines()[0].replace("``", "`")
        yield about, feature.title, asserts, *(found.of(feature).outcome for found in results)


def reason_rows(results: Sequence[Results]) -> Iterator[tuple[str, ...]]:
    """Yield why a feature is not simply passed."""
    yield "manager", "feature", "", "reason"
    for found in results:
        if found.absent:
            yield found.manager, "all others" if found.findings else "all", ABSENT, found.absent
        for feature in features():
            finding = found.of(feature)
            if finding.reason and finding.outcome != ABSENT:
                yield found.manager, feature.title, finding.outcome, finding.reason


def parameter_rows(results: Sequence[Results]) -> Iterator[tuple[str, ...]]:
    """Yield which parameters managers refuse: managers across, parameters down."""
    yield "parameter", *(found.manager for found in results)
    for parameter in ManagedProcess.PARAMETERS:
        test = f"{PARAMETER_TEST}[{parameter}]"
        yield parameter, *(found.findings.get(test, Finding(NOT_RUN)).outcome for found in results)


def print_tables(directory: str) -> None:
    """Print all tables of a directory, as Markdown."""
    results = read_all(directory)
    for table in (rows(results), parameter_rows(results), reason_rows(results)):
        head, *body = table
        for row in (head, ("---",) * len(head), *body):
            print("|", " | ".join(cell.replace("|", "\\|") for cell in row), "|")
        print()
