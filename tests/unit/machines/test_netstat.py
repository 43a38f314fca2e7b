"""What netstat of Windows says about listening sockets, in any language."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_nixproc.machines import listeners
from pytest_nixproc.machines.listeners import listeners_by_netstat, read_netstat
from pytest_nixproc.values.machine import Listener

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
    """What listens goes with Cygwin's number of its process; elsewhere, no process has a number of Windows."""
    (tmp_path / "printed").write_text(PRINTED, encoding="utf-8")
    monkeypatch.setattr(os, "popen", lambda _: (tmp_path / "printed").open(encoding="utf-8"))
    monkeypatch.setattr(listeners, "all_processes", lambda: [os.getpid()])
    assert [listener.pid for listener in listeners_by_netstat()] == [None, None, None]
    monkeypatch.setattr(listeners, "read_facts", {f"/proc/{os.getpid()}/winpid": b"7204\n"}.__getitem__)
    assert [listener.pid for listener in listeners_by_netstat()] == [None, os.getpid(), None]
