"""Every registered process manager creates accounts and switches users, where that may be tried."""

from __future__ import annotations

from pytest_nixproc.testing.privileged import PrivilegedConformance


class TestManager(PrivilegedConformance):
    """All of it, for all of them."""

    manager = "all"
