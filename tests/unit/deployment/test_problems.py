"""The problems of a teardown."""

from __future__ import annotations

import pytest

from pytest_nixproc._deployment.problems import collect_problems
from pytest_nixproc.errors import NixprocError


def test_attempt_turns_failures_into_problems() -> None:
    """A failure of ours or of the system becomes a problem; a mistake in the program does not."""

    def fail_with(error: Exception) -> list[str]:
        raise error

    assert collect_problems(lambda: ["a", "b"]) == ["a", "b"]
    assert collect_problems(lambda: fail_with(NixprocError("brief", details="facts"))) == ["brief\nfacts"]
    assert collect_problems(lambda: fail_with(OSError("disk full"))) == ["disk full"]
    with pytest.raises(ZeroDivisionError):
        collect_problems(lambda: fail_with(ZeroDivisionError()))
