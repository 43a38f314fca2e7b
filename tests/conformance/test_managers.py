"""Every registered process manager conforms."""

from __future__ import annotations

from pytest_nixproc.testing.conformance import ManagerConformance


class TestManager(ManagerConformance):
    """All of it, for all of them."""

    manager = "all"
