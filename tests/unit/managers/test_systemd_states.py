"""What the driver makes of systemctl's output, and what is in the way of systemd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_nixproc.managers.systemd import availability
from pytest_nixproc.managers.systemd.scope import own_group
from pytest_nixproc.managers.systemd.unit_state import UnitState, reason_of_end, unit_states
from pytest_nixproc.values.units import Status


def state(**shown: str) -> UnitState:
    """Return a state at a service that has never been started, but for what is given."""
    never = {"Id": "a.service", "ActiveState": "inactive", "SubState": "dead", "Result": "success"}
    numbers = {"MainPID": "0", "ExecMainPID": "0", "ExecMainCode": "0", "ExecMainStatus": "0"}
    return UnitState({**never, **numbers, "ExecMainStartTimestampMonotonic": "0", **shown})


def ended(exit_status: int | None) -> Status:
    """Return the status of what has ended."""
    return Status(running=False, has_ended=True, exit_status=exit_status)


RUNNING = {"ActiveState": "active", "SubState": "running", "MainPID": "7", "ExecMainStartTimestampMonotonic": "1"}
ENDED = {"ExecMainStartTimestampMonotonic": "1", "ExecMainPID": "7"}


NOT_YET = Status(running=False)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, NOT_YET),
        (RUNNING, Status(running=True, pid=7)),
        (RUNNING | {"ActiveState": "reloading"}, Status(running=True, pid=7)),
        (RUNNING | {"ActiveState": "deactivating"}, Status(running=True, pid=7)),
        (RUNNING | {"ActiveState": "activating"}, NOT_YET),
        (ENDED | {"ActiveState": "activating", "ExecMainCode": "1"}, replace(NOT_YET, exit_status=0)),
        (ENDED | {"ExecMainCode": "1"}, ended(0)),
        (ENDED | {"ActiveState": "deactivating", "ExecMainCode": "1"}, ended(0)),
        (ENDED | {"ActiveState": "failed", "ExecMainCode": "1", "ExecMainStatus": "3"}, ended(3)),
        (ENDED | {"ActiveState": "failed", "ExecMainCode": "2", "ExecMainStatus": "9"}, ended(-9)),
        (ENDED | {"ActiveState": "failed", "ExecMainCode": "3", "ExecMainStatus": "11"}, ended(-11)),
        ({"ActiveState": "failed", "Result": "exit-code"}, ended(None)),
    ],
)
def test_status(shown: dict[str, str], expected: Status) -> None:
    """States of systemd's become what all managers say."""
    assert replace(state(**shown).status(), text="") == expected


def test_text_of_a_status() -> None:
    """It names states, result, and why a unit could not be loaded."""
    assert state(**RUNNING).status().text == "active (running)"
    failed = state(ActiveState="failed", SubState="failed", Result="timeout", LoadError="org.x 'bad'")
    assert failed.status().text == "failed (failed), result timeout, org.x 'bad'"
    assert failed.status("because").text == "failed (failed), result timeout, because"


def test_looks_are_paragraphs() -> None:
    """Each paragraph of the output is one unit; values may hold equal signs."""
    assert [one["Id"] for one in unit_states("Id=a\nX=1=2\n\nId=b\n\n")] == ["a", "b"]
    assert next(unit_states("Id=a\nX=1=2\n"))["X"] == "1=2"


def command(name: str, code: str, status: str, arguments: str = "") -> str:
    """Return a command as systemctl shows it."""
    rest = f"ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=7 ; code={code} ; status={status}"
    return f"{name}={{ path=/bin/a b ; argv[]=/bin/a b {arguments} ; {rest} }}\n"


@pytest.mark.parametrize(
    ("shown", "output", "reason"),
    [
        ({}, command("ExecStart", "exited", "0"), ""),
        ({}, command("ExecStart", "(null)", "0/0"), ""),
        ({}, command("ExecStartPre", "exited", "42"), "its initialize ended with status 42"),
        ({}, command("ExecStartPre", "exited", "42", "; code=exited ; status=0 }\nX=1"), "ended with status 42"),
        ({}, command("ExecStart", "killed", "11/SEGV"), "its starter was killed by signal 11"),
        ({"ExecMainCode": "1", "ExecMainStatus": "7"}, command("ExecStart", "exited", "7"), ""),
        (
            {"ExecMainCode": "1", "ExecMainStatus": "203"},
            command("ExecStart", "exited", "203/EXEC"),
            "its program cannot be executed (status 203/EXEC): /bin/a b",
        ),
        ({}, command("ExecStart", "exited", "203/EXEC"), "could not be run (its program cannot be executed"),
    ],
)
def test_reasons(shown: dict[str, str], output: str, reason: str) -> None:
    """A failed command is named, with how it has ended; hostile arguments do not stand for that."""
    found = reason_of_end(state(**shown), output)
    assert reason in found
    assert bool(reason) == bool(found)


def test_own_group() -> None:
    """The group of version 2 is found among those of version 1."""
    assert own_group("9:name=systemd:/x\n1:cpu:/\n0::/a b/c:d\n") == "/a b/c:d"
    assert own_group("1:cpu:/\n") == "/"


def test_session_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session without a socket, or with a dead one, is none."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert not availability.session_answers()
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd/private").touch()
    assert not availability.session_answers()


def test_groups_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without control groups, or with others' alone, the reason names what is missing and the remedy."""
    monkeypatch.setattr(availability, "CGROUP_MOUNTS", (str(tmp_path),))
    assert "mount -t cgroup2" in availability.missing_group()
    monkeypatch.setattr(availability, "own_group", lambda _: "/")
    (tmp_path / "cgroup.procs").touch()
    assert availability.missing_group() == ""
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "Delegate=yes" in availability.missing_group()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "writable /sys/fs/cgroup" in availability.missing_group()


def test_forbidden_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting that forbids user namespaces is named."""
    limit = tmp_path / "max_user_namespaces"
    limit.write_text("0\n")
    monkeypatch.setattr(availability, "NAMESPACE_LIMITS", ((str(limit), "0"),))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert str(limit) in availability.missing_permission()
    limit.write_text("100\n")
    assert availability.missing_permission() == ""
