"""The rule about instances that end though nobody has stopped them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytest_nixproc.checks.api import EndReport, Rule
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.values.findings import Finding


def unasked_ends(report: EndReport) -> Iterator[Finding]:
    """Find instances that have ended by themselves; one that runs again is only a warning."""
    name = report.instance
    if report.is_back:
        problem = f"{name} {report.how}, and its manager has started it again"
        remedy = f"see its log; a test that ends it on purpose calls system[{name!r}].kill()"
        yield Finding("NP215", "warning", problem, (name,), (), remedy)
    else:
        when = "" if report.seconds is None else f" within {report.seconds:.1f} s after it was ready"
        problem = f"{name} {report.how}{when}, by itself: {report.status}"
        remedy = f"see its log; a test that ends it on purpose calls system[{name!r}].kill() or .stop(), and an"
        remedy += " instance that ends when its work is done says may_end=True"
        yield Finding("NP215", "error", problem, (name,), (), remedy)


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Offer the rule."""
    return RULES


RULES: Final = [
    Rule(
        "NP215",
        "no instance ends that nobody has stopped",
        end=unasked_ends,
        explanation="After each phase of a test, and before a system is taken down, it looks whether every main process"
        " that was seen running still does. An end is an error of the test in which it is seen, and of the system as a"
        " whole, at its teardown. `stop`, `restart`, `stopped` and `kill` of a test are no such ends, nor are those of"
        " instances with `may_end=True`. Where the manager has started the instance again, as overrides can have it do,"
        " it is a warning. What NP201 or NP305 has told is not told again.",
    ),
]
