"""The choice of a source by the name of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_nixproc.errors import SourceError
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Source, read_model

if TYPE_CHECKING:
    from tests.unit.sources.conftest import WriteFile

SOURCES = tuple(
    Source(suffix, (f".{suffix}",), lambda path, _, suffix=suffix: ProcessesModel({}, origin=f"{suffix} {path}"))  # type: ignore[misc]
    for suffix in ("a", "b")
)


def test_suffix_chooses_the_source(write_file: WriteFile, context: ModelContext) -> None:
    """A file is read by the source that is for its suffix."""
    path = write_file("model.b", "")
    assert read_model(path, context, SOURCES).origin == f"b {path}"


def test_unknown_suffix_lists_the_known(write_file: WriteFile, context: ModelContext) -> None:
    """A file that no source is for is refused with the suffixes that there are."""
    with pytest.raises(SourceError, match=r"model\.c is no model file") as caught:
        read_model(write_file("model.c", ""), context, SOURCES)
    assert caught.value.remedy == "its name has to end in one of .a, .b"


@pytest.mark.parametrize("name", ["absent.a", "directory.a"])
def test_absent_file_is_named(tmp_path: Path, context: ModelContext, name: str) -> None:
    """A file that is not there, or is none, is an error that names it and says to check its path."""
    (tmp_path / "directory.a").mkdir()
    with pytest.raises(SourceError, match=f"no model file .*{name}") as caught:
        read_model(str(tmp_path / name), context, SOURCES)
    assert caught.value.remedy == "check its path"
