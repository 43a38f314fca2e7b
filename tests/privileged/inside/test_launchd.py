"""The manager launchd switches users, with a launchd of the tests' own."""

from __future__ import annotations

from pytest_nixproc.testing.privileged import PrivilegedConformance
from tests.managers.mac import OnAStandIn


class TestLaunchdOnAStandIn(OnAStandIn, PrivilegedConformance):
    """All of it."""
