"""The problems of a teardown, which goes on past each of them."""

from __future__ import annotations

from collections.abc import Callable

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.values.commands import OUTPUT_TAIL
from pytest_nixproc.values.units import Unit


def collect_problems(action: Callable[[], list[str] | None]) -> list[str]:
    """Do one part of a teardown; its failure becomes a problem, so that the other parts are done too."""
    try:
        return action() or []
    except (NixprocError, OSError) as error:
        return [str(error)]


def with_log(problem: str, driver: Driver, unit: Unit, start: int | None) -> str:
    """Return a problem of a unit's stop with what it has logged from byte ``start`` on; None where that is unknown."""
    if start is None:
        return problem
    try:
        log = driver.log(unit, start)
    except (NixprocError, OSError):
        return problem
    lines = [f"  | {line}" for line in log[-OUTPUT_TAIL:].splitlines()]
    return "\n".join([problem, *(["  logged since the stop was asked for:", *lines] if lines else [])])
