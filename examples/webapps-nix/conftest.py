"""What the tests of this example share."""

from __future__ import annotations

import os

import pytest

NGINX = "/usr/sbin/nginx"


@pytest.fixture(scope="session")
def nginx() -> str:
    """Return the nginx that the constructors name; without it, skip, or fail where it is required (as in CI)."""
    if os.access(NGINX, os.X_OK):
        return NGINX
    problem = f"there is no {NGINX}: apt install nginx-light"
    if "nginx" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(","):
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)
