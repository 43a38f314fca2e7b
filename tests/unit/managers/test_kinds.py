"""The kinds of values of overrides: what each takes, and how it tells of what it does not."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import pytest

from pytest_nixproc.errors import Fault
from pytest_nixproc.managers import kinds
from pytest_nixproc.model.value_types import ValueType

RESTART = kinds.one_of("no", "on-failure", "always")
MIXED = kinds.one_of("strict", or_else=kinds.TRUTH)


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (kinds.TRUTH, [True, False, 0, 1], ["true", 2, None, ""]),
        (kinds.COUNT, [0, "7", 10**12], [-1, "1s", 1.5, True, None, [1]]),
        (kinds.WHOLE_NUMBER, [0, "-7", "+3"], ["", "x", 1.5]),
        (kinds.SECONDS, [0, 1.5, "2."], [-1, "1s", True]),
        (kinds.TEXT, ["", "a\nb", 1, PurePath("/a")], [None, {"a": 1}, ["a"], ("a",), {"a"}, dict]),
        (kinds.TEXTS, [{}, {"A": 1}], ["A=1", [("A", "1")], {"A": {}}]),
        (RESTART, ["always", "no"], ["Always", "", None, True]),
        (MIXED, ["strict", True], ["full", "true"]),
        (
            kinds.SIGNAL,
            ["TERM", "SIGINT", "sigint", "-USR1", 9, "9", "RTMIN+3", "SIGRTMAX-2", "INFO"],
            ["KILLME", "", 0, 129, "-", "SIG", "RTMIN+", None, True, "TERM\n"],
        ),
    ],
    ids=lambda value: value.title if isinstance(value, ValueType) else None,
)
def test_values(kind: ValueType, taken: list[Any], refused: list[Any]) -> None:
    """A kind takes its values as they are, and has one fault for each other one, with the value and the kind."""
    for value in taken:
        faults: list[Fault] = []
        assert (kind.read(value, "x", faults), faults) == (value, [])
    for value in refused:
        faults = []
        kind.read(value, "x", faults)
        assert [(fault.path, fault.problem) for fault in faults] == [("x", f"is {value!r}, which is not {kind.title}")]


def test_nothing() -> None:
    """Where a parameter may be nothing, all else is read by its kind."""
    faults: list[Fault] = []
    read = [kinds.optional(kinds.COUNT).read(value, "x", faults) for value in (None, 3, "x")]
    assert (read, len(faults)) == ([None, 3, "x"], 1)


@pytest.mark.parametrize(
    ("kind", "value", "remedy"),
    [
        (RESTART, "alwayz", "did you mean 'always'?"),
        (MIXED, "stric", "did you mean 'strict'?"),
        (kinds.SIGNAL, "SIGTREM", "did you mean 'SIGTERM'?"),
        (RESTART, "perhaps", ""),
    ],
)
def test_word_that_was_meant(kind: ValueType, value: str, remedy: str) -> None:
    """Of a kind's words, the one that is like the value is named."""
    faults: list[Fault] = []
    kind.read(value, "x", faults)
    assert [fault.remedy for fault in faults] == [remedy]
