"""The choice of the suite's parts: only those of the chosen profiles are run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixproc._plugin.session import session_of


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of a profile that is not asked for; their file is named after it."""
    name = collection_path.name.removeprefix("test_").removesuffix(".py")
    is_of_profile = collection_path.name == f"test_{name}.py"
    return True if is_of_profile and name not in session_of(config).matrix.profiles() else None
