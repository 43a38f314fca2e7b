"""These tests change accounts: they are collected only where that is allowed, as in the sandbox of the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixproc._plugin import options
from tests.conformance.conftest import agrees_with_the_record

__all__ = ["agrees_with_the_record"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:  # noqa: ARG001 - all of them
    """Leave the tests out unless the host is said to be disposable."""
    return None if options.read_flag(config, "disposable-host") else True
