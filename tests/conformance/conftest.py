"""What the documentation says about conformance is what these tests find."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc._plugin import options
from pytest_nixproc.testing.conformance.recorder import noted_outcome, test_of
from pytest_nixproc.testing.conformance.results import Results

RECORDED: Final = Path(__file__).parents[2] / "docs" / "conformance"
EVERYTHING_BY_DEFAULT: Final = ("supervisord", "sysvinit")
"""Managers with which the default loop tries everything: one that supervises programs, one that leaves them alone."""

DECIDED_ONCE: Final = ("Answering", "PidFiles")
"""Parts of the suite about what one module of ours decides, whoever the manager is."""

REMEDY: Final = "CONTRIBUTING.md says how to record conformance anew"


@cache
def recorded(manager: str) -> Results:
    """Return what is recorded of a manager."""
    return Results.read(str(RECORDED / f"{manager}.json"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to what is long what the other managers are least likely to fail alone.

    That is the mode that they do not prefer, and what is not theirs to decide.
    """
    for item in items:
        if (found := test_of(item)) and found[0].name not in EVERYTHING_BY_DEFAULT:
            manager, test = found
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            usual = manager.capabilities.prefers
            if parameters.get("mode", usual) != usual or test.startswith(DECIDED_ONCE):
                item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def agrees_with_the_record(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail where a test comes to something else than the documentation says."""
    yield
    if (found := test_of(request.node)) and not options.read(request.config, "conformance-results"):
        manager, test = found
        finding = recorded(manager.name).findings.get(test)
        assert finding == noted_outcome(request.node), f"{test} is recorded as {finding}; {REMEDY}"
