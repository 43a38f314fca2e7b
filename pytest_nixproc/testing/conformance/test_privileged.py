"""The suite for the managers that the options choose, where accounts are created and users are switched."""

from __future__ import annotations

from pytest_nixproc.testing.privileged import PrivilegedConformance


class TestPrivileged(PrivilegedConformance):
    """All tests of the suite with accounts."""
