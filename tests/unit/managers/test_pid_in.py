"""What PID files name."""

from __future__ import annotations

import pytest

from pytest_nixproc.managers.api import pid_in
from pytest_nixproc.managers.daemons import first_number


@pytest.mark.parametrize(
    ("content", "pid"), [(b"12", 12), (b" 12\n", 12), (b"0012", 12), (b"2147483647", 2147483647), (b"0" * 20 + b"7", 7)]
)
def test_content_that_names_a_process(content: bytes, pid: int) -> None:
    """A number is a process, with blanks and zeros around it."""
    assert (pid_in(content), first_number(content + b" more")) == (pid, pid)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"0", b"-1", b"1.5", b"web", b"2147483648", b"1700000000000", b"9" * 5000, "٣".encode(), b"\xff"],
)
def test_content_that_names_none(content: bytes) -> None:
    """Neither text nor a number that no process can have is one: not 0, and not the time of day."""
    assert (pid_in(content), first_number(content)) == (None, None)


def test_more_than_a_number() -> None:
    """Only where more is expected, it may follow."""
    assert (pid_in(b"12 13"), first_number(b"12 13")) == (None, 12)
