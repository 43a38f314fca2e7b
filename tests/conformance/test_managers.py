"""Every registered process manager conforms."""

from __future__ import annotations

from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.conformance import ManagerConformance


def conformance_of(name: str) -> type[ManagerConformance]:
    """Return the suite for one manager; its tests are skipped with the reason where the manager cannot run."""
    return type(f"Test{name.title()}", (ManagerConformance,), {"manager": name, "__module__": __name__})


globals().update({suite.__name__: suite for suite in map(conformance_of, Registry().managers)})
