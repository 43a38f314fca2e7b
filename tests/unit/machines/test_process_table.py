"""What is asked of psutil where there is no ``/proc``: of this very process, which both can be asked about."""

from __future__ import annotations

import os
import socket
import sys

import psutil
import pytest

from pytest_nixproc.machines import process_table
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.listeners import listeners_by_psutil
from pytest_nixproc.values.machine import Listener

NOBODY = 1 << 23
"""Above all pids (proc(5), pid_max)."""


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the module do as if there was no ``/proc``."""
    monkeypatch.setattr(process_table, "HAS_PROC", False)


@pytest.mark.usefixtures("without_proc")
def test_tag() -> None:
    """A process is known by its tag."""
    name, value = next((name, value) for name, value in psutil.Process().environ().items() if value)
    assert Host().processes.has_tag(os.getpid(), f"{name}={value}")
    assert not Host().processes.has_tag(os.getpid(), f"{name}={value}?")


@pytest.mark.usefixtures("without_proc")
def test_command_line() -> None:
    """A process is described by its command line."""
    assert process_table.command_line(os.getpid()) == " ".join(psutil.Process().cmdline())


@pytest.mark.usefixtures("without_proc")
def test_identity() -> None:
    """A process is told from later ones with its pid by its start."""
    assert process_table.identity_of(os.getpid()) == str(psutil.Process().create_time())


@pytest.mark.usefixtures("without_proc")
def test_nobody() -> None:
    """Of a process that is gone, there is nothing to say."""
    assert process_table.environment_of(NOBODY) == b""
    assert process_table.command_line(NOBODY) == ""
    assert process_table.identity_of(NOBODY) == ""
    assert process_table.own_pid(NOBODY) == NOBODY


@pytest.mark.usefixtures("without_proc")
def test_bare_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that has no psutil says nothing."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert process_table.environment_of(os.getpid()) == b""


@pytest.mark.parametrize("may_see_all", [True, False])
def test_listeners(may_see_all: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a parameter
    """Who listens is found, also where only the processes of one's own may be looked at, one by one."""

    def refuse(kind: str) -> None:
        raise psutil.AccessDenied(None, kind)

    if not may_see_all:
        monkeypatch.setattr(psutil, "net_connections", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert Listener("127.0.0.1", server.getsockname()[1], os.getpid()) in listeners_by_psutil()
