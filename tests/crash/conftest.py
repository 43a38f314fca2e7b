"""What the crash tests share: sessions in projects and with leases of their own, and the proof that nothing is left."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from pytest_nixproc._persistence.leases import VARIABLE
from pytest_nixproc.machines.process_table import command_line, is_alive, parents
from tests.crash.private_engine import PrivateEngine, private_engine
from tests.crash.storm import COUNTED, MARKS, MODEL, Session, session


@pytest.fixture(autouse=True)
def own_leases(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a directory of leases, not made yet, that no other session on the machine uses."""
    with tempfile.TemporaryDirectory(prefix="kl") as place:
        directory = f"{place}/own/leases"
        monkeypatch.setenv(VARIABLE, directory)
        yield directory


@pytest.fixture
def project() -> Iterator[Session]:
    """Return a session of pytest, not started, with the storm's model and no tests; all of it is cleaned up."""
    with session({"processes.py": MODEL, "counted.py": COUNTED, "conftest.py": MARKS, "pytest.ini": INI}) as one:
        yield one


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateEngine]:
    """Return a Docker engine, not started, that ``DOCKER_HOST`` names."""
    with private_engine() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        # Sessions that are started before the engine must not require one.
        monkeypatch.delenv("NIXPROC_REQUIRE", raising=False)
        yield engine


INI = "[pytest]\nnixproc_model = processes.py\nnixproc_stop_timeout = 2\naddopts = -p no:xdist\n"


@pytest.fixture(autouse=True)
def no_process_below_us() -> Iterator[None]:
    """Fail when a test leaves a process below this one."""
    before = set(below_us())
    yield
    left = {pid: command_line(pid) for pid in below_us() if pid not in before}
    assert not left, f"the test left processes: {left}"


def below_us() -> list[int]:
    """Return our living children."""
    return [pid for pid, parent in parents().items() if parent == os.getpid() and is_alive(pid)]
