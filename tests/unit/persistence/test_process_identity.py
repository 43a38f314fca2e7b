"""ProcessAttribution: a process is told apart from a later one with its pid, and from those of other boots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from pytest_nixproc._persistence import process_identity
from pytest_nixproc._persistence.process_identity import ProcessIdentity, boot_id


def test_current_process_is_alive() -> None:
    """This process is an owner that lives, also when it is read back."""
    me = ProcessIdentity.current()
    assert me.pid == os.getpid()
    assert me.is_alive
    assert ProcessIdentity.read(json.loads(json.dumps(me.facts()))) == me


def test_ended_process_is_not_alive() -> None:
    """An owner is gone when its process has ended, also while nobody has waited for it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = ProcessIdentity.of(process.pid)
        assert owner.is_alive
        if process.stdin:
            process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        as_zombie = owner.is_alive
    assert (as_zombie, owner.is_alive) == (False, False)


def test_another_process_with_the_pid_is_not_the_owner() -> None:
    """A pid alone proves nothing: start time and boot have to be the same."""
    me = ProcessIdentity.current()
    assert not replace(me, started=str(int(me.started) - 1)).is_alive
    assert not replace(me, boot="another boot").is_alive
    assert boot_id()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/proc/sys/kernel/random/boot_id": b"an-identity\n"}, "an-identity"),
        ({"/proc/stat": b"cpu  1 2\nbtime 1700000000\n"}, "1700000000"),
        ({}, str(int(psutil.boot_time()))),
    ],
)
def test_boots(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], expected: str) -> None:
    """A boot is known by its identity, else by its time, as /proc or psutil says it."""
    monkeypatch.setattr(process_identity, "read_facts", lambda path: files.get(path, b""))
    assert boot_id.__wrapped__() == expected


def test_no_process_is_not_alive() -> None:
    """A pid that nobody can have is not alive, whatever its start time."""
    nobody = ProcessIdentity.of(1 << 30)
    assert not nobody.is_alive
    assert not replace(nobody, started="").is_alive


@pytest.mark.parametrize("facts", [None, [], 3, "text", {}, {"pid": 1}, {"pid": None, "started": "", "boot": ""}])
def test_what_is_no_owner_is_refused(facts: object) -> None:
    """Facts that describe no owner raise what readers expect."""
    with pytest.raises((TypeError, KeyError)):
        ProcessIdentity.read(facts)
