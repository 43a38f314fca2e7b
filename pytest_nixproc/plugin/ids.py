"""The ids of items of model files, as pytest shows them: it takes a bracket for the beginning of parameters.

From version 9.2 on, pytest makes such an id anew from its parts for its summary, and adds the bracket that it believes
to have been at its end; its JUnit report does the same.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

try:
    from _pytest.nodeid import NodeId
except ImportError:
    NodeId = None  # type: ignore[assignment,misc]

POINT: Final = "::["
"""What follows the model in the id of its items, and in no other id but that of a strange parameter."""


def is_cut(nodeid: str) -> bool:
    """Tell whether an id has a bracket that does not enclose its end."""
    return POINT in nodeid and not nodeid.endswith("]")


class ItemNames:
    """A plugin for one pytest process that has items called by their names; needed where there are structured ids."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Mend the report of an item before anybody shows it."""
        if is_cut(report.nodeid):
            spell_out(report)
            self._tell_junit(report)

    def _tell_junit(self, report: pytest.TestReport) -> None:
        from _pytest.junitxml import xml_key

        if xml := self.config.stash.get(xml_key, None):
            xml.node_reporter(report).add_attribute("name", f"[{report.nodeid.partition(POINT)[2]}")


def spell_out(report: Any) -> None:
    """Give a report an id that is equal to its own, and shows the name of the item as it is."""
    parts = report.id
    report._id = ItemId(path=parts.path, names=parts.names, params=parts.params)  # noqa: SLF001 - there is no setter


if NodeId is not None:

    class ItemId(NodeId):
        """An id whose last parts, names and brackets, stand as they were written."""

        __slots__ = ()

        def __str__(self) -> str:
            return f"{self.path}::{self.rest}"

        @property
        def rest(self) -> str:
            """Everything after the path."""
            return f"{'::'.join(self.names)}[{self.params}"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, NodeId) and parts_of(self) == parts_of(other)

        def __hash__(self) -> int:
            return super().__hash__()


def parts_of(nodeid: Any) -> tuple[object, ...]:
    """Return what pytest compares of two ids."""
    return nodeid.path, nodeid.names, nodeid.params
