"""What the tests of this directory share."""

from __future__ import annotations

import os
import shutil

import pytest
from constructors import NGINX


@pytest.fixture(scope="session")
def nginx() -> str:
    """Return the real nginx; without it, skip, or fail where ``NIXPROC_TEST_REQUIRE`` names it (as in CI)."""
    found: str | None = shutil.which(NGINX)
    if found:
        return found
    problem = f"there is no nginx, neither in PATH nor as {NGINX}: apt install nginx-light"
    if "nginx" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(","):
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)
