"""Every registered process manager creates accounts and switches users, where that may be tried."""

from __future__ import annotations

from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.privileged import PrivilegedConformance


def conformance_of(name: str) -> type[PrivilegedConformance]:
    """Return the suite for one manager."""
    return type(f"Test{name.title()}", (PrivilegedConformance,), {"manager": name, "__module__": __name__})


globals().update({suite.__name__: suite for suite in map(conformance_of, Registry().managers)})
