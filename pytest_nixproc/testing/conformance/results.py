"""Results of the suite, in one file for each manager, and the tables that are made of these files.

With ``--nixproc-conformance-results=DIR``, a run writes ``DIR/NAME.json`` for each of its managers, or brings it up to
date with the tests that were run. ``python -m pytest_nixproc.testing.conformance DIR`` prints the tables.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Final, Self

from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.values.value import Value

PASS: Final = "pass"  # noqa: S105 - an outcome
FAIL: Final = "FAIL"
REFUSED: Final = "refused"
PARTLY: Final = "partly"
ABSENT: Final = "cannot run here"
NOT_RUN: Final = "not run"

PARAMETER_TEST: Final = "Declarations.test_parameter"
"""The test that has a table of its own."""

RANKS: Final = (FAIL, NOT_RUN, REFUSED, PARTLY, PASS)
"""Outcomes, from the worst to the best: a feature has the worst one of its variants."""


class Feature(Value):
    """One test of the suite."""

    subject: str
    """The name of the class that has the test."""

    test: str
    """The name of the test's function."""

    asserts: str
    """The behaviour that must hold: the test's docstring."""

    @property
    def title(self) -> str:
        """The test's name for people."""
        return self.test.removeprefix("test_").replace("_", " ")

    @property
    def key(self) -> str:
        """The name of the test in results."""
        return f"{self.subject}.{self.test}"


class Outcome(Value):
    """The outcome of one variant of a test, or of a whole feature."""

    outcome: str
    reason: str = ""
    """Why it is not simply a pass; may be empty."""


class Results(Value):
    """The results of one manager."""

    manager: str
    """The manager's name."""

    absent: str = ""
    """Why the manager could not run; empty where it could."""

    findings: Mapping[str, Outcome] = field(default_factory=dict)
    """Outcomes by test and variant."""

    @classmethod
    def read(cls, path: str) -> Self:
        """Read a file of results; return empty results if there is no file."""
        name = os.path.basename(path).removesuffix(".json")
        if not os.path.exists(path):
            return cls(name)
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
        findings = {test: Outcome(*finding) for test, finding in facts["findings"].items()}
        return cls(name, facts["absent"], findings)

    def write(self, path: str) -> None:
        """Write the results, one test a line."""
        findings = {test: [found.outcome, found.reason] for test, found in sorted(self.findings.items())}
        lines = ",\n".join(f"    {json.dumps(test)}: {json.dumps(found)}" for test, found in findings.items())
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'{{\n  "absent": {json.dumps(self.absent)},\n  "findings": {{\n{lines}\n  }}\n}}\n')

    def with_run(self, run: Results, features: Iterable[Feature]) -> Results:
        """Return the results updated with those of a run.

        ``features`` are all tests that the run's subjects have; results of others of these subjects are dropped.

        What has been found where the manager can run stays, when it cannot where the run was.
        """
        stays = run.absent and self.findings and not self.absent
        features = list(features)
        subjects, tests = {feature.subject for feature in features}, {feature.key for feature in features}
        findings = {
            test: found
            for test, found in {**self.findings, **run.findings}.items()
            if base(test) in tests or test.partition(".")[0] not in subjects
        }
        return replace(self, absent="" if stays else run.absent, findings=findings)

    def of(self, feature: Feature) -> Outcome:
        """Return the outcome of a feature: the worst of its variants, with all of their reasons."""
        found = [finding for test, finding in self.findings.items() if base(test) == feature.key]
        if not found:
            return Outcome(ABSENT if self.absent else NOT_RUN, self.absent)
        outcome = min((finding.outcome for finding in found), key=RANKS.index)
        return Outcome(outcome, "; ".join(dict.fromkeys(finding.reason for finding in found if finding.reason)))


def base(test: str) -> str:
    """Return the name of a test without the variant in brackets."""
    return test.partition("[")[0]


def features_of(subjects: Iterable[type[Any]]) -> list[Feature]:
    """Return the features of some classes: their tests."""
    return [
        Feature(kind.__name__, name, inspect.getdoc(test) or "")
        for kind in subjects
        for name, test in vars(kind).items()
        if name.startswith("test_")
    ]


def subject_of(kind: type[Any], test: str) -> type[Any]:
    """Return the class that defines a test which a test class has or inherits: the subject of the test."""
    return next(parent for parent in kind.__mro__ if test in vars(parent))


def read_all(directory: str) -> list[Results]:
    """Return the results of each manager that has any, in the order of their names."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    return [Results.read(os.path.join(directory, name)) for name in names]


def rows(results: Sequence[Results], features: Iterable[Feature]) -> Iterator[tuple[str, ...]]:
    """Yield the table: managers across, features down; the first row is the head."""
    yield "about", "feature", "what must hold", *(found.manager for found in results)
    for feature in features:
        about = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", feature.subject.removesuffix("Conformance")).lower()
        asserts = feature.asserts.splitlines()[0].replace("``", "`")
        yield about, feature.title, asserts, *(found.of(feature).outcome for found in results)


def reason_rows(results: Sequence[Results], features: Sequence[Feature]) -> Iterator[tuple[str, ...]]:
    """Yield the table of the reasons why a feature is not simply passed."""
    yield "manager", "feature", "", "reason"
    for found in results:
        if found.absent:
            yield found.manager, "all others" if found.findings else "all", ABSENT, found.absent
        for feature in features:
            finding = found.of(feature)
            if finding.reason and finding.outcome != ABSENT:
                yield found.manager, feature.title, finding.outcome, finding.reason


def parameter_rows(results: Sequence[Results]) -> Iterator[tuple[str, ...]]:
    """Yield the table of the parameters that managers refuse: managers across, parameters down."""
    yield "parameter", *(found.manager for found in results)
    for parameter in ManagedProcess.PARAMETERS:
        test = f"{PARAMETER_TEST}[{parameter}]"
        yield parameter, *(found.findings.get(test, Outcome(NOT_RUN)).outcome for found in results)


def print_tables(directory: str, features: Sequence[Feature]) -> None:
    """Print all tables of a directory, as Markdown."""
    results = read_all(directory)
    for table in (rows(results, features), parameter_rows(results), reason_rows(results, features)):
        head, *body = table
        for row in (head, ("---",) * len(head), *body):
            print("|", " | ".join(cell.replace("|", "\\|") for cell in row), "|")
        print()
