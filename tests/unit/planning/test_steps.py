"""The steps from one unit_set to another."""

from __future__ import annotations

import pytest

from pytest_nixproc._planning.steps import UnitSet, steps_between
from pytest_nixproc.values.units import File, Link, Unit


def unit(name: str, content: str = "", target: str = "") -> Unit:
    """Return a unit with one file and one link."""
    return Unit(name, "daemon", f"/log/{name}", f"/run/{name}.pid", (File(name, content),), (Link("l", target),))


def unit_set(instances: str, needs: str = "", **changed: Unit) -> UnitSet:
    """Return a unit_set: a letter for each instance, and pairs of letters, the first of which depends on the second."""
    pairs = needs.split()
    dependencies = {name: tuple(pair[1] for pair in pairs if pair[0] == name) for name in instances}
    return UnitSet({name: changed.get(name, unit(name)) for name in instances}, dependencies)


def steps(old: UnitSet, new: UnitSet) -> list[tuple[str, str, str]]:
    """Return what is done with whom, and after whom."""
    return [(step.verb, step.name, "".join(step.after)) for step in steps_between(old, new)]


NEEDS = "ca cb dc"
UP = unit_set("abcd", NEEDS)


def test_everything_is_started_after_what_it_needs() -> None:
    """A fresh unit_set starts in an order that can be taken as it is; each step says what it waits for."""
    assert steps(UnitSet(), UP) == [("start", "a", ""), ("start", "b", ""), ("start", "c", "ab"), ("start", "d", "c")]


def test_everything_is_stopped_in_reverse() -> None:
    """Taking down is bringing up backwards: what is needed waits for all that need it."""
    assert steps(UP, UnitSet()) == [("stop", "d", ""), ("stop", "c", "d"), ("stop", "a", "c"), ("stop", "b", "c")]


def test_steps_have_reasons() -> None:
    """A step says whether it is for a system as a whole."""
    assert {step.reason for step in steps_between(UnitSet(), UP)} == {"the system is brought up"}
    assert {step.reason for step in steps_between(UP, UnitSet())} == {"the system is taken down"}


def test_nothing_changes_nothing() -> None:
    """Between equal profiles there is nothing to do, and nothing between empty ones."""
    assert steps_between(UP, unit_set("abcd", NEEDS)) == steps_between(UnitSet(), UnitSet()) == ()


@pytest.mark.parametrize("change", [unit("c", content="new"), unit("c", target="new")])
def test_only_what_changed_is_restarted(change: Unit) -> None:
    """An instance whose file or link differs is stopped and started; those that depend on it go on."""
    assert steps(UP, unit_set("abcd", NEEDS, c=change)) == [("stop", "c", ""), ("start", "c", "")]


def test_need_reaches_through_what_goes_on() -> None:
    """What changes waits for what it needs only through an instance that stays as it is."""
    changes = {"a": unit("a", content="new"), "d": unit("d", content="new")}
    assert steps(UP, unit_set("abcd", NEEDS, **changes)) == [
        *(("stop", "d", ""), ("stop", "a", "d")),
        *(("start", "a", ""), ("start", "d", "a")),
    ]


def test_obsolete_stops_before_new_starts() -> None:
    """What is no longer there stops first, dependants before dependencies, then the new starts in its own order."""
    assert steps(UP, unit_set("aef", "fe")) == [
        *(("stop", "d", ""), ("stop", "c", "d"), ("stop", "b", "c")),
        *(("start", "e", ""), ("start", "f", "e")),
    ]


def test_reasons_of_an_upgrade() -> None:
    """The steps of an upgrade say that they are for a change."""
    reasons = {step.verb: step.reason for step in steps_between(unit_set("a"), unit_set("b"))}
    assert reasons == {"stop": "changed or no longer in the model", "start": "new or changed"}


def test_another_dependency_alone_is_no_change() -> None:
    """An instance that only depends on something else goes on."""
    assert steps(unit_set("ab"), unit_set("ab", "ba")) == []
