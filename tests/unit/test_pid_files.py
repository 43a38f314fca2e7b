"""What PID files name, and what is said of them."""

from __future__ import annotations

import pytest

from pytest_nixproc.values.pid_files import described, pid_in


@pytest.mark.parametrize(
    ("content", "pid"),
    [
        (b"12", 12),
        (b" 12\n", 12),
        (b"0012", 12),
        (b"2147483647", 2147483647),
        (b"0" * 20 + b"7", 7),
        (b"12\n/var/lib/data\n1690000000\n", 12),
        (b"12 13\n", 12),
        (b"12\tserver --fast\n", 12),
        (b"12\r\n", 12),
        (b"\n \n12\n", 12),
        (b"\r\n12\r\n", 12),
        (b"12\n\0", 12),
        (b"12".ljust(16, b"\0"), 12),
        (b"\0\x0012", 12),
        (b"12 \xff", 12),
    ],
)
def test_content_that_names_a_process(content: bytes, pid: int) -> None:
    """The first word of the first line that has one is the process, whatever stands around it."""
    assert pid_in(content) == pid


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", b"\0\0", b"0", b"-1", b"1.5", b"web", b"pid 12", b"web\n12\n", b"\x0012a"),
        *(b"2147483648", b"1700000000000", b"9" * 5000, "٣".encode(), b"\xff"),
    ],
)
def test_content_that_names_none(content: bytes) -> None:
    """Neither text nor a number that no process can have is one: not 0, and not the time of day."""
    assert pid_in(content) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"web 12\n", "holds 'web 12'"),
        (b"\x1b[31m\xff\nno\0", r"holds '\x1b[31m\xff\nno'"),
        (b"x" * 61, f"holds '{'x' * 60}' and more"),
    ],
)
def test_what_is_said_of_a_content(content: bytes | None, words: str) -> None:
    """A content is quoted so that nobody's terminal takes it for more than text, and no more than a line of it."""
    assert described(content) == words
