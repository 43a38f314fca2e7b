"""Starting a process in a session of its own, in the way that the system has, and in the way that every system has."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pytest_nixproc.machines.guardian import spawning

Spawn = Callable[..., int]

LOOK = """\
import json, os, signal, sys
facts = [os.getsid(0) == os.getpid(), dict(os.environ), sys.argv[1:], sys.stdin.read(), os.listdir('/dev/fd')]
print(json.dumps(facts + [signal.getsignal(signal.SIGHUP) == signal.SIG_DFL]), flush=True)
print('and an error', file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture(params=["spawn", "spawn_by_fork"])
def spawn(request: pytest.FixtureRequest) -> Spawn:
    """Return each way."""
    way: Spawn = getattr(spawning, request.param)
    return way


def test_what_a_process_is_given(spawn: Spawn, tmp_path: Path) -> None:
    """It leads a session, has its arguments and environment alone, reads nothing, and its output is appended."""
    output = tmp_path / "output"
    output.write_text("before\n")
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        argv = [sys.executable, "-I", "-S", "-c", LOOK, "an argument"]
        pid = spawn(argv, {"LC_CTYPE": "C.UTF-8", "A": "1"}, str(output), [signal.SIGHUP])
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    before, line, error = output.read_text().splitlines()
    assert (before, error) == ("before", "and an error")
    *facts, descriptors, has_default = json.loads(line)
    assert facts == [True, {"LC_CTYPE": "C.UTF-8", "A": "1"}, ["an argument"], ""]
    assert has_default
    # Whoever runs the tests may have left some open to every child; one more is what it lists them by.
    inherited = {"0", "1", "2"} | inheritable()
    assert len(descriptors) == len(inherited) + 1
    assert set(descriptors) > inherited


def children() -> set[int]:
    """Return the children of this process, ended or not: other tests have some running."""
    return {child.pid for child in psutil.Process().children()}


def inheritable() -> set[str]:
    """Return the descriptors of this process that every child gets."""
    found = set()
    for name in os.listdir("/dev/fd"):
        # That of the listing is closed by now.
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(name)):
                found.add(name)
    return found


@pytest.mark.parametrize("program", ["/nowhere/at all", "/etc/passwd"])
def test_what_cannot_be_started(spawn: Spawn, program: str) -> None:
    """A program that is not there, or is none, is an error at once, and leaves no child."""
    before = children()
    with pytest.raises(OSError, match=r"No such file|Permission denied"):
        spawn([program], {}, os.devnull, [])
    assert children() == before


@pytest.mark.parametrize(("argument", "variable"), [("a\0b", "x"), ("x", "a\0b"), ("\ud800", "x")])
def test_what_no_program_can_be_given(spawn: Spawn, argument: str, variable: str) -> None:
    """A text that holds a NUL, or stands for no bytes, is an error at once, and leaves no child."""
    before = children()
    with pytest.raises((OSError, ValueError), match=r"null byte|surrogates not allowed|Invalid argument"):
        spawn(["/bin/sh", "-c", argument], {"V": variable}, os.devnull, [])
    assert children() == before


def test_directory_for_the_output_is_missing(spawn: Spawn, tmp_path: Path) -> None:
    """An output that cannot be opened is an error too."""
    with pytest.raises(FileNotFoundError):
        spawn([sys.executable, "-c", ""], {}, str(tmp_path / "no" / "output"), [])


def test_the_longer_way_is_taken_where_it_has_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where posix_spawn(3) knows no sessions, a process is started all the same."""

    def unavailable(*_: object, **__: object) -> int:
        raise NotImplementedError

    monkeypatch.setattr(os, "posix_spawn", unavailable)
    pid = spawning.spawn(["/bin/sh", "-c", "exit 3"], {}, None, [])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
