"""The steps from one profile to another."""

from __future__ import annotations

import pytest

from pytest_nixproc.deployment.plan import Profile, Step, steps_between
from pytest_nixproc.managers.api import File, Link, Unit


def unit(name: str, content: str = "", target: str = "") -> Unit:
    """Return a unit with one file and one link."""
    return Unit(name, "daemon", f"/log/{name}", f"/run/{name}.pid", (File(name, content),), (Link("l", target),))


def profile(*levels: str, **changed: Unit) -> Profile:
    """Return a profile: a word for each level, a letter for each instance."""
    names = [name for level in levels for name in level]
    return Profile({name: changed.get(name, unit(name)) for name in names}, tuple(tuple(level) for level in levels))


def verbs(old: Profile, new: Profile) -> list[tuple[str, str]]:
    """Return the steps without their reasons."""
    return [(step.verb, "".join(step.names)) for step in steps_between(old, new)]


UP = profile("ab", "c", "d")


def test_everything_is_started_by_levels() -> None:
    """A fresh profile starts level by level, each step with the reason."""
    assert steps_between(Profile(), UP) == (
        Step("start", ("a", "b"), "the system is brought up"),
        Step("start", ("c",), "the system is brought up"),
        Step("start", ("d",), "the system is brought up"),
    )


def test_everything_is_stopped_in_reverse() -> None:
    """Taking down is bringing up backwards."""
    steps = steps_between(UP, Profile())
    assert [step.names for step in steps] == [step.names for step in reversed(steps_between(Profile(), UP))]
    assert {(step.verb, step.reason) for step in steps} == {("stop", "the system is taken down")}


def test_nothing_changes_nothing() -> None:
    """Between equal profiles there is nothing to do, and nothing between empty ones."""
    assert steps_between(UP, profile("ab", "c", "d")) == steps_between(Profile(), Profile()) == ()


@pytest.mark.parametrize("change", [unit("c", content="new"), unit("c", target="new")])
def test_only_what_changed_is_restarted(change: Unit) -> None:
    """An instance whose file or link differs is stopped and started; those that depend on it go on."""
    assert verbs(UP, profile("ab", "c", "d", c=change)) == [("stop", "c"), ("start", "c")]


def test_obsolete_stops_before_new_starts() -> None:
    """What is no longer there stops first, dependants before dependencies, then the new starts in its own order."""
    assert verbs(UP, profile("ae", "f")) == [
        ("stop", "d"),
        ("stop", "c"),
        ("stop", "b"),
        ("start", "e"),
        ("start", "f"),
    ]


def test_reasons_of_an_upgrade() -> None:
    """The steps of an upgrade say that they are for a change."""
    reasons = {step.verb: step.reason for step in steps_between(profile("a"), profile("b"))}
    assert reasons == {"stop": "changed or no longer in the model", "start": "new or changed"}


def test_another_level_alone_is_no_change() -> None:
    """An instance that only moved to another level goes on."""
    assert verbs(profile("ab"), profile("a", "b")) == []
