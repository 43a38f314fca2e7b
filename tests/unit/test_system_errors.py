"""Errors of the operating system in words."""

from __future__ import annotations

import errno
import os

import pytest

from pytest_nixproc.values.system_errors import in_words, remedy_of

OPEN_FILES = "Too many open files: /p (raise the limit of open files (ulimit -n))"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/p"), OPEN_FILES),
        (OSError(errno.EFBIG, "File too large"), "File too large (raise the limit of file sizes (ulimit -f))"),
        (OSError(errno.EACCES, "Permission denied", b"/p\xff"), "Permission denied: /p\udcff"),
        (OSError(errno.EBADF, "Bad file descriptor", 7), "Bad file descriptor"),
        (OSError("of a library"), "of a library"),
    ],
)
def test_error_is_one_line(error: OSError, text: str) -> None:
    """An error names its path, and what to do where its number says that."""
    assert in_words(error) == text


def test_number_decides_what_to_do() -> None:
    """What a caller would say otherwise is said only where the number says nothing."""
    assert remedy_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "look") == "make room there"
    assert remedy_of(OSError(errno.EIO, os.strerror(errno.EIO)), "look") == "look"
