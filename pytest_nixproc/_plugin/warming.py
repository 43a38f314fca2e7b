"""The beginning of what deployments need, as soon as collection has ended and tests are known that will deploy."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import pytest

from pytest_nixproc._plugin import options
from pytest_nixproc._plugin.active_point import point_of
from pytest_nixproc._plugin.session import Session
from pytest_nixproc.errors import NixprocError

DEPLOYING: Final = frozenset({"nixproc_system", "nixproc_constructor"})
"""The fixtures of a test that surely deploys."""


def warm_up(session: Session, items: Iterable[pytest.Item]) -> None:
    """Have the guardian, and the manager's own start, begin for the first of the tests that will deploy here."""
    if options.read_flag(session.config, "plan") or session.config.getoption("collectonly"):
        return
    deploying = (item for item in items if not DEPLOYING.isdisjoint(getattr(item, "fixturenames", ())))
    points = (point_of(item) for item in deploying if not item.get_closest_marker("skip"))
    point = next(filter(None, points), None)
    if point is None or session.registry.machine(point.machine).throwaway:
        return
    machine = session.machine(point.machine)
    # What stands in the way is told by the deployment.
    with suppress(NixprocError):
        machine.lifecycle.prepare()
        point.manager.warm_up(machine)
    import_ahead()


def import_ahead() -> None:
    """Import what the first deployment would, while that begins on another processor."""
    import filelock  # noqa: F401

    import pytest_nixproc._plugin.deployer  # noqa: F401
