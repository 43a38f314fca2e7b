"""Overrides: how they change parameters, in which spelling, and how those that are wrong are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pytest_nixproc.errors import Fault
from pytest_nixproc.managers import kinds
from pytest_nixproc.managers.overriding import MOST_NAMES, Overridden, known_names, overridden
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.process import CamelCaseFunction, create_managed_process

GENERATED = {"stop_seconds": 10, "args": ("a",), "environment": {"A": "1"}}


def changed(override: Any, faults: list[Fault], spelling: Any = snake_case) -> Overridden:
    """Return parameters as an override changes them."""
    process = create_managed_process(name="web", process="/bin/web", overrides={"it": override})
    return overridden("it", process, GENERATED, faults, spelling=spelling)


def add_b(variables: Mapping[str, str]) -> dict[str, str]:
    """Add a variable."""
    return {**variables, "B": "2"}


def add_another(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Change two parameters, one of them to what it is already."""
    return {**parameters, "args": ["a"], "stopSeconds": 33}


@pytest.mark.parametrize(
    ("override", "values", "written"),
    [
        ({"environment": {"B": "2"}}, {"environment": {"A": "1", "B": "2"}}, {"environment": "environment"}),
        ({"environment": add_b}, {"environment": {"A": "1", "B": "2"}}, {"environment": "environment"}),
        ({"environment": "B=2"}, {"environment": "B=2"}, {"environment": "environment"}),
        ({"stopSeconds": 33}, {"stop_seconds": 33}, {"stop_seconds": "stopSeconds"}),
        (add_another, {"stop_seconds": 33, "args": ["a"]}, {"stop_seconds": "stopSeconds"}),
    ],
)
def test_changes(override: Any, values: dict[str, Any], written: dict[str, str]) -> None:
    """A mapping is merged in, a function replaces all; what was not changed does not count as set."""
    found = changed(override, [])
    assert found.values == {**GENERATED, **values}
    assert found.written == written


def test_function_of_a_language_with_camel_case() -> None:
    """A function of Nix gets parameters of ours in camelCase; names of the manager's own stay as they are."""
    given: list[list[str]] = []

    def notice(parameters: dict[str, Any]) -> dict[str, Any]:
        given.append(sorted(parameters))
        return parameters

    for spelling in (snake_case, str):
        assert changed(CamelCaseFunction(notice), [], spelling).values == GENERATED
    assert given == [["args", "environment", "stopSeconds"], ["args", "environment", "stop_seconds"]]


def test_function_that_returns_nothing() -> None:
    """A function that forgets to return what it has changed is named, with what it returns."""
    faults: list[Fault] = []
    assert changed(lambda _: None, faults).values == GENERATED
    assert [(fault.path, fault.problem) for fault in faults] == [("it", "is a function that returns None")]


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("stopSecnods", "did you mean 'stopSeconds'?"),
        ("stop_secnods", "did you mean 'stop_seconds'?"),
        ("colour", "known are args, environment, stop_seconds"),
        ("theColour", "known are args, environment, stopSeconds"),
    ],
)
def test_unknown_name(written: str, remedy: str) -> None:
    """An unknown name is told as it was written, with the known one that is like it, in the same spelling."""
    faults: list[Fault] = []
    changed({written: 1}, faults).read(GENERATED, {}, faults)
    assert faults == [Fault(written, "is no parameter", remedy)]


def test_many_known_names() -> None:
    """A list of known names is bounded, and says so."""
    remedy = known_names("colour", (f"n{number}" for number in range(MOST_NAMES + 3)))
    assert remedy.endswith("n6 and 3 more")
    assert "more" not in known_names("colour", (f"n{number}" for number in range(MOST_NAMES)))


def test_values_are_read_by_their_kinds() -> None:
    """What a process has set is read by its kind, and told with its part; what was generated is not looked at."""
    faults: list[Fault] = []
    of_kinds = {"stop_seconds": kinds.COUNT, "args": kinds.COUNT}
    changed({"stopSeconds": "soon"}, faults).read(GENERATED, of_kinds, faults, part="some")
    assert faults == [Fault("some.stopSeconds", "is 'soon', which is not a whole number, 0 or more")]
