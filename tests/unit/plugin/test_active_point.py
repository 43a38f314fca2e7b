"""When a point of the matrix is over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import pytest

from pytest_nixproc._plugin.active_point import ActivePoint

SCOPE: Final = "scope"
OTHER_SCOPE: Final = "another scope"
POINTS: Final = {"a": object(), "b": object()}


def items_at(points: str, config: Any) -> list[Any]:
    """Return tests in their order, each at the point of a letter, or at none for a dot; a bar ends the scope."""
    session = SimpleNamespace(items=[])
    for number, part in enumerate(points.split("|")):
        chain = [OTHER_SCOPE if number else SCOPE]
        for point in part:
            callspec = None if point == "." else SimpleNamespace(params={"nixproc_point": POINTS[point]})
            facts: dict[str, Any] = {"config": config, "callspec": callspec, "listchain": lambda chain=chain: chain}
            session.items.append(SimpleNamespace(session=session, **facts))
    items: list[Any] = session.items
    return items


def ended_after(points: str, *, cached: object = ("value", None), **config: object) -> list[int]:
    """Return after which tests point ``a`` is ended, if it were still set up then."""
    found: list[int] = []
    items = items_at(points, SimpleNamespace(**config))
    for number, item in enumerate(items):
        definition: Any = SimpleNamespace(cached_result=cached, finish=lambda _, number=number: found.append(number))
        active = ActivePoint(definition, SimpleNamespace(param=POINTS["a"], node=SCOPE))
        active.end_after(item, items[number + 1] if number + 1 < len(items) else None)
    return found


@pytest.mark.parametrize(
    ("points", "ended"),
    [
        ("aab", [1]),
        ("a.ab", [2]),
        ("a.b", [0, 1]),
        ("aa", []),
        ("a..", [0]),
        ("aa.|a", [1]),
    ],
)
def test_last_test_of_a_point(points: str, ended: list[int]) -> None:
    """A point is over with its last test in its scope, whatever follows; after the last test of all, pytest ends it."""
    assert ended_after(points) == ended


def test_worker_knows_the_next_test_only() -> None:
    """A worker of pytest-xdist is told one test ahead: a point is over when that has another one."""
    assert ended_after("a.b", workerinput={}) == [1]
    assert ended_after("ab", workerinput={}) == [0]


def test_what_has_ended_is_not_ended_again() -> None:
    """Where pytest has ended the fixtures already, as at the end of a module, nothing is done."""
    assert ended_after("ab", cached=None) == []
