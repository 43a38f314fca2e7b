"""The suite for the managers that the options choose, where processes run as the calling user."""

from __future__ import annotations

from pytest_nixproc.testing.conformance import ManagerConformance


class TestUnprivileged(ManagerConformance):
    """All tests of the suite without accounts."""
