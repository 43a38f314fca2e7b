"""Reports are written into files, and one that cannot be is an error that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixproc._persistence.files import write_report
from pytest_nixproc.errors import NixprocError


def test_report_is_written(tmp_path: Path) -> None:
    """A report ends with a line break, and takes the place of an earlier one."""
    path = tmp_path / "findings.json"
    path.write_text("an earlier and longer report\n")
    write_report(str(path), "naïve")
    assert path.read_text(encoding="utf-8") == "naïve\n"


def test_report_that_cannot_be_written(tmp_path: Path) -> None:
    """The error says which file, and why."""
    with pytest.raises(NixprocError, match=f"cannot write the report {tmp_path}: Is a directory"):
        write_report(str(tmp_path), "text")
