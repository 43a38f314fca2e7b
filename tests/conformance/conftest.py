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
REMEDY: Final = "CONTRIBUTING.md says how to record conformance anew"


@cache
def recorded(manager: str) -> Results:
    """Return what is recorded of a manager."""
    return Results.read(str(RECORDED / f"{manager}.json"))


@pytest.fixture(autouse=True)
def agrees_with_the_record(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail where a test comes to something else than the documentation says."""
    yield
    if (found := test_of(request.node)) and not options.read(request.config, "conformance-results"):
        manager, test = found
        finding = recorded(manager.name).findings.get(test)
        assert finding == noted_outcome(request.node), f"{test} is recorded as {finding}; {REMEDY}"
