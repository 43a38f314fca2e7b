"""A place for what these tests start, the proof that nothing of it is left, and the tools that they need."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator

import pytest

from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import environment_of, is_alive, parents
from pytest_nixproc.testing.conformance.results import subject_of
from pytest_nixproc.values.tags import DEPLOYMENT

REQUIRED = frozenset(filter(None, os.environ.get("NIXPROC_TEST_REQUIRE", "").split(",")))
"""Tools whose absence is a failure, for machines that are meant to have them."""

DECIDED_BY_MANAGERS = ("Declarations", "Surroundings", "Living")
"""Parts of the suite about what generators and drivers decide alone."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to what is long most of the suite of conformance where it tries a stand-in, and no real manager.

    The rest is what a manager's own files decide, in the mode that it prefers.
    """
    for item in items:
        usual = getattr(getattr(item, "cls", None), "usual_mode", None)
        if usual and isinstance(item, pytest.Function) and item.cls is not None:
            part = subject_of(item.cls, item.originalname).__name__
            mode = getattr(getattr(item, "callspec", None), "params", {}).get("mode", usual)
            if mode != usual or part not in DECIDED_BY_MANAGERS:
                item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    """Return a function that finds a tool; without it, a test is skipped, or fails where the tool is required."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None and name in REQUIRED:
            pytest.fail(f"{name} is required by NIXPROC_TEST_REQUIRE, and is not installed")
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return find


@pytest.fixture
def place() -> Iterator[str]:
    """Return a directory of the test's own; a process that carries it in its tag must not survive the test."""
    place = os.path.realpath(tempfile.mkdtemp(prefix="np"))
    yield place
    left = [pid for pid in parents() if f"{DEPLOYMENT}={place}".encode() in environment_of(pid) and is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(place)
    assert not left, "processes were left behind"


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    """Return this machine."""
    machine = Host()
    yield machine
    machine.lifecycle.close()


@pytest.fixture
def free_port(machine: Host) -> int:
    """Return a TCP port that is free; below the range from which kernels choose ports of clients."""
    candidates = (20000 + secrets.randbelow(12000) for _ in range(1000))
    return next(port for port in candidates if machine.network.port_is_free(port))
