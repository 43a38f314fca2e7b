"""What netstat of Windows says about listening sockets, in any language."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_nixproc.machines import listeners
from pytest_nixproc.machines.api import Listener
from pytest_nixproc.machines.listeners import read_netstat, windows_pids

PRINTED = """

  Proto                                                           PID
  TCP    0.0.0.0:135            0.0.0.0:0              ABHÖREN          940
  TCP    127.0.0.1:5000         0.0.0.0:0              ABHÖREN         7204
  TCP    127.0.0.1:5000         127.0.0.1:50811        HERGESTELLT     7204
  TCP    [::1]:8080             [::]:0                 ABHÖREN         7205
"""


def test_listening_sockets_are_read() -> None:
    """Sockets without a partner listen; a process that is not Cygwin's has no number that Cygwin knows."""
    assert list(read_netstat(PRINTED, {7204: 1042, 7205: 1043})) == [
        Listener("0.0.0.0", 135, None),  # noqa: S104 - an address that was printed
        Listener("127.0.0.1", 5000, 1042),
        Listener("::1", 8080, 1043),
    ]


def test_numbers_of_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Elsewhere than in Cygwin, no process has a number of Windows."""
    assert windows_pids() == {}
    (tmp_path / "winpid").write_text("7204\n")
    monkeypatch.setattr(listeners, "read_facts", lambda _: (tmp_path / "winpid").read_bytes())
    monkeypatch.setattr(listeners, "all_processes", lambda: [os.getpid()])
    assert windows_pids() == {7204: os.getpid()}
