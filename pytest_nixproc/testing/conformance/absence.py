"""One skipped test per class, instead of all its tests, for a manager that cannot run here."""

from __future__ import annotations

from typing import Final

import pytest

NAME: Final = "nixproc-conformance-absence"
SKIP: Final = "skip"


def skip_once(config: pytest.Config) -> None:
    """Keep one of the tests that a class skips for a manager, and leave out the others."""
    if not config.pluginmanager.has_plugin(NAME):
        config.pluginmanager.register(Absence(), NAME)


class Absence:
    """The plugin of pytest that leaves out all but one of the tests which are skipped for the same reason."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep one skipped test per class and reason, after ``-k`` and ``-m`` have selected, so that one is shown."""
        first: dict[object, pytest.Item] = {}
        others = [item for item in items if (key := absence_of(item)) and first.setdefault(key, item) is not item]
        if others:
            left_out = set(others)
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=others)


def absence_of(item: pytest.Item) -> object:
    """Return the class, the manager and the reason for which a test is skipped; None for a test that runs."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or not isinstance(item, pytest.Function) or "tested_manager" not in callspec.params:
        return None
    reasons = [mark.kwargs["reason"] for mark in callspec.marks if mark.name == SKIP]
    return (item.cls, callspec.params["tested_manager"].name, *reasons) if reasons else None
