"""The problems of a teardown, which goes on past each of them, and what the system refuses a deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from pytest_nixproc.errors import DeploymentError, NixprocError
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.values.commands import OUTPUT_TAIL
from pytest_nixproc.values.system_errors import in_words, remedy_of
from pytest_nixproc.values.units import Unit


def collect_problems(action: Callable[[], list[str] | None]) -> list[str]:
    """Do one part of a teardown; its failure becomes a problem, so that the other parts are done too."""
    try:
        return action() or []
    except NixprocError as error:
        return [str(error)]
    except OSError as error:
        return [in_words(error)]


@contextmanager
def told_plainly(root: str) -> Iterator[None]:
    """Turn an error of the operating system into one of ours that names the place: a full disk, most of all."""
    try:
        yield
    except OSError as error:
        brief = f"cannot deploy in {root}: {error.strerror or error}"
        details = f"file: {error.filename}" if error.filename else ""
        remedy = f"{remedy_of(error, 'see to it')}, or choose another --nixproc-state-root"
        raise DeploymentError(brief, details=details, remedy=remedy) from error


def log_sizes(driver: Driver, units: Mapping[str, Unit], names: Iterable[str]) -> dict[str, int]:
    """Return how much instances have logged so far, in bytes; nothing where that cannot be known."""
    with suppress(NixprocError, OSError):
        return {name: driver.log_size(units[name]) for name in names}
    return {}


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
