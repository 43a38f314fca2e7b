"""What the tests of sources share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.values.state import StateDirs

WriteFile = Callable[[str, str], str]


@pytest.fixture
def context(state: StateDirs) -> ModelContext:
    """Return what models are told, with one parameter of the user's own."""
    return ModelContext(state=state, params={"greeting": "hello"})


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    """Return a function that writes a file below the test's directory, and returns its path."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return str(path)

    return write
