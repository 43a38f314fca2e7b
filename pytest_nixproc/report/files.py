"""Reports in files that people ask for."""

from __future__ import annotations

from pytest_nixproc.errors import NixprocError


def write_report(path: str, text: str) -> None:
    """Write a report into a file; raises :class:`~pytest_nixproc.errors.NixprocError`."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        remedy = "choose a file that can be written"
        raise NixprocError(f"cannot write the report {path}: {error.strerror or error}", remedy=remedy) from error
