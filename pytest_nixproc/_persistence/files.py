"""Files that are written whole, or not at all."""

from __future__ import annotations

import os
from contextlib import suppress

from pytest_nixproc.errors import NixprocError


def replace_file(path: str, content: str) -> None:
    """Write a file so that readers see the old content or the new one, and never a part."""
    temporary = temporary_for(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def temporary_for(path: str) -> str:
    """Return the path that a file's new content is written to first: always the same, so that it can be found."""
    return f"{path}.new"


def remove(path: str) -> None:
    """Remove a file; one that does not exist is no error."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def write_report(path: str, text: str) -> None:
    """Write a report into a file; raises :class:`~pytest_nixproc.errors.NixprocError`."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        remedy = "choose a file that can be written"
        raise NixprocError(f"cannot write the report {path}: {error.strerror or error}", remedy=remedy) from error
