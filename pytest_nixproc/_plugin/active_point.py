"""The end of a point of the matrix with its last test, so that the problems of its teardown are that test's.

By itself, pytest ends the fixtures of one point when it sets up those of another: its problems would be the errors of
another manager's first test, which would not run.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Any, Final

import pytest

from pytest_nixproc._plugin.matrix import Point
from pytest_nixproc.values.value import Value

FIXTURE: Final = "nixproc_point"
KEY: Final = pytest.StashKey["ActivePoint"]()


class ActivePoint(Value):
    """The point for which the fixtures were set up last."""

    definition: pytest.FixtureDef[Any]
    """The fixture whose value it is."""

    request: Any
    """The request for that fixture; pytest has no public name for the type."""

    def end_after(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """End everything that depends on the point if a test was its last one; after the very last, pytest does so."""
        if self.definition.cached_result is not None and nextitem is not None and self._is_over(item, nextitem):
            self.definition.finish(self.request)

    def _is_over(self, item: pytest.Item, nextitem: pytest.Item) -> bool:
        # Without one, the test has asked for its only point when it ran.
        point = getattr(self.request, "param", None)
        if (following := point_of(nextitem)) is not None:
            return following is not point
        # A worker of pytest-xdist is told no more than the next test.
        is_told = not hasattr(item.config, "workerinput")
        return is_told and point_of(item) is point and self._next_point(nextitem) is not point

    def _next_point(self, item: pytest.Item) -> Point | None:
        """Return the point of the next test in the fixture's scope that has one, from ``item`` on."""
        items = item.session.items
        coming: Iterable[pytest.Item] = items[items.index(item) :]
        in_scope = takewhile(lambda other: self.request.node in other.listchain(), coming)
        return next((point for other in in_scope if (point := point_of(other)) is not None), None)


def point_of(item: pytest.Item) -> Point | None:
    """Return the point that a test is run at; None for one that needs no system."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get(FIXTURE) if callspec else None
