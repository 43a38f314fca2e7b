"""The documentation's record of conformance is whole: every feature of the suite, every manager, nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.testing.conformance.declarations import SAMPLES
from pytest_nixproc.testing.conformance.results import (
    FAIL,
    NOT_RUN,
    PARAMETER_TEST,
    REFUSED,
    Feature,
    Outcome,
    Results,
    base,
    features_of,
    read_all,
)
from pytest_nixproc.testing.conformance.subjects import SUBJECTS

ROOT: Final = Path(__file__).parents[2]
RECORDED: Final = read_all(str(ROOT / "docs" / "conformance"))


FEATURES: Final = features_of(SUBJECTS)


def managers_of_examples() -> set[str]:
    """Return the managers that the examples' distributions add."""
    projects = (tomllib.loads(path.read_text()) for path in (ROOT / "examples").glob("*/pyproject.toml"))
    return {name for project in projects for name in project["project"]["entry-points"]["pytest_nixproc"]}


def test_managers() -> None:
    """Every registered manager has its column, and so has that of the example."""
    assert {results.manager for results in RECORDED} == Registry().managers.keys() | managers_of_examples()


@pytest.mark.parametrize("results", RECORDED, ids=lambda results: results.manager)
def test_features(results: Results) -> None:
    """Every feature has been tried, or the manager cannot run; none has failed, and none is recorded that is gone."""
    known = {feature.key for feature in FEATURES}
    assert {base(test) for test in results.findings} <= known
    outcomes = {feature.key: results.of(feature).outcome for feature in FEATURES}
    assert {name for name, outcome in outcomes.items() if outcome in (FAIL, NOT_RUN)} == set()


@pytest.mark.parametrize("results", RECORDED, ids=lambda results: results.manager)
def test_refusals(results: Results) -> None:
    """What a manager refuses is exactly what it declares missing, with its reason."""
    manager = Registry().managers.get(results.manager)
    if manager is None:
        pytest.skip(f"{results.manager} is another distribution's")
    expected = {
        name: Outcome(REFUSED, f"{name}: {reason}") for name, reason in manager.capabilities.unsupported.items()
    }
    found = {name: results.findings[f"{PARAMETER_TEST}[{name}]"] for name in ManagedProcess.PARAMETERS}
    assert {name: finding for name, finding in found.items() if finding.outcome == REFUSED} == expected


def test_samples() -> None:
    """The suite tries every parameter of a process."""
    assert SAMPLES.keys() == set(ManagedProcess.PARAMETERS)


def test_results_of_another_machine_stay(tmp_path: Path) -> None:
    """A run where a manager cannot run keeps what was found where it can; a first one says why it cannot."""
    path, tests = str(tmp_path / "mine.json"), [Feature("A", "test_it", ""), Feature("A", "test_pure", "")]
    absent = Results("mine", "no tool", {"A.test_pure": Outcome("pass")})
    assert Results.read(path).with_run(absent, tests) == absent
    whole = absent.with_run(Results("mine", "", {"A.test_it[x]": Outcome("pass"), "A.gone": Outcome("pass")}), tests)
    assert whole == Results("mine", "", {"A.test_pure": Outcome("pass"), "A.test_it[x]": Outcome("pass")})
    assert whole.with_run(absent, tests) == whole
    other = whole.with_run(Results("mine", "", {"B.test_it": Outcome("pass")}), [Feature("B", "test_it", "")])
    assert other.findings == {**whole.findings, "B.test_it": Outcome("pass")}
    whole.write(path)
    assert Results.read(path) == whole
