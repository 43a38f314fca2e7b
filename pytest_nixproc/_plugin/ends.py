"""Ends of instances that nobody has asked for: failures of the tests in which they are seen, and of their systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_nixproc._plugin.session import Session
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import ConflictError, NixprocError
from pytest_nixproc.values.findings import Finding, errors_of


def fail_for_ends(session: Session, item: pytest.Item, *, has_failed: bool) -> None:
    """Fail the test for ends since the last look, or if nobody can look any more.

    A test that has failed anyway keeps its own failure, and shows this in its report.
    """
    error: NixprocError | None = None
    try:
        if found := [finding for system in list(session.live) for finding in ends_seen(session, system, item.nodeid)]:
            error = error_about(found)
    except NixprocError as problem:
        error = problem
    if error is None:
        return
    if has_failed:
        session.noted.append(("nixproc: ended during this test", str(error)))
    else:
        pytest.fail(str(error), pytrace=False)


def error_about(ends: Sequence[Finding]) -> ConflictError:
    """Return the error that instances have ended by themselves."""
    names = dict.fromkeys(name for finding in ends for name in finding.instances)
    return ConflictError(
        f"{', '.join(names)} ended, and nobody has stopped {'it' if len(names) == 1 else 'them'}", ends
    )


def ends_seen(session: Session, system: System, test: str) -> list[Finding]:
    """Look for ends in a system, and remember the errors among them with the test; warnings are told at the end."""
    errors = errors_of(system.check_ends())
    session.findings.ends.setdefault(system, []).extend((test, finding) for finding in errors)
    return errors


def ends_of_scope(session: Session, system: System) -> list[Finding]:
    """Return the ends in a system that is about to be taken down, but for those that the current test has told."""
    fresh = errors_of(system.check_ends())
    told = session.findings.ends.pop(system, [])
    earlier = [(test, finding) for test, finding in told if test != session.test]
    return [replace(finding, origins=(*finding.origins, f"seen in {test}")) for test, finding in earlier] + fresh
