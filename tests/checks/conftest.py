"""How Hypothesis draws here: the same models in each run, unless ``--hypothesis-seed`` asks for others."""

from __future__ import annotations

import pytest
from hypothesis import settings


def pytest_configure(config: pytest.Config) -> None:
    """Make runs repeatable; a failure says how to have its model again."""
    is_settled = config.getoption("--hypothesis-seed", None) is None
    settings.register_profile("settled", derandomize=is_settled, database=None, deadline=None, print_blob=True)
    settings.load_profile("settled")
