"""The one tree of exceptions, and how its members word themselves."""

from __future__ import annotations

import inspect

import pytest

from pytest_nixproc import errors
from pytest_nixproc.errors import (
    ConflictError,
    Fault,
    ModelError,
    NixprocError,
    TeardownError,
    UnknownName,
    Unsupported,
)
from pytest_nixproc.values.findings import Finding

FINDING = Finding("NP101", "error", "a and b do x", ("a", "b"), ("a = 1", "b = 1"), "change it")

TEXTS: list[tuple[NixprocError, list[str]]] = [
    (NixprocError("brief"), ["brief"]),
    (NixprocError("brief", details="one\ntwo"), ["brief", "one", "two"]),
    (NixprocError("brief", remedy="do it"), ["brief", "fix: do it"]),
    (NixprocError("brief", details="facts", remedy="do it"), ["brief", "facts", "fix: do it"]),
    (ModelError([Fault("p", "is wrong")]), ["the processes model has a fault", "  p: is wrong"]),
    (
        ModelError([Fault("p", "is wrong", "mend"), Fault("q", "too")], origin="m.py"),
        ["the processes model m.py has 2 faults", "  p: is wrong (mend)", "  q: too"],
    ),
    (UnknownName("manager", "x", {"b", "a"}), ["unknown manager 'x'", "fix: choose one of: a, b"]),
    (
        Unsupported("sysvinit", "web", "it is odd", remedy="be even"),
        ["sysvinit cannot deploy 'web': it is odd", "fix: be even"],
    ),
    (
        ConflictError("they fight", [FINDING]),
        ["they fight", "NP101 error: a and b do x", "    a = 1", "    b = 1", "    fix: change it"],
    ),
    (TeardownError(["one", "two"]), ["the system was not stopped cleanly", "  one", "  two"]),
]

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize(("error", "lines"), TEXTS, ids=lambda value: type(value).__name__)
def test_text_is_brief_details_remedy(error: NixprocError, lines: list[str]) -> None:
    """An error's text is its brief in one line, then the facts, then the remedy; what is not there takes no line."""
    assert str(error).splitlines() == lines


def test_facts_can_be_asked_for() -> None:
    """What an error says in words is there as data too."""
    fault = Fault("p", "is wrong")
    assert ModelError([fault]).faults == (fault,)
    assert ConflictError("x", [FINDING]).findings == (FINDING,)
    assert TeardownError(["x"]).problems == ("x",)


@pytest.mark.parametrize("kind", KINDS)
def test_one_tree(kind: type[Exception]) -> None:
    """Who catches the base catches all; each says what it is for."""
    assert issubclass(kind, NixprocError)
    assert kind.__doc__


def test_faults_are_sorted_by_path() -> None:
    """Faults have an order, for those who want one."""
    assert min(Fault("b", "x"), Fault("a", "y")).path == "a"
