"""What the unit tests share: one place of deployment that is the same on every machine."""

from __future__ import annotations

import pytest

from pytest_nixproc.managers.api import Target
from pytest_nixproc.model.state import StateDirs


@pytest.fixture
def state() -> StateDirs:
    """Return state directories that nobody makes."""
    return StateDirs.under("/srv/state")


@pytest.fixture
def target(state: StateDirs) -> Target:
    """Return a place of deployment that nobody makes."""
    return Target(state=state, directory="/srv/profile", tags={"NIXPROC_DEPLOYMENT": "/srv"}, stop_seconds=5)
