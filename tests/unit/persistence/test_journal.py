"""The journal: what was written is what is recalled."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_nixproc._persistence.journal import Journal, begin, events, facts_of, recall, start_facts
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Unit

HOSTILE = 'a "b"\nü\udcff'


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return the path of a journal."""
    return str(tmp_path / "journal")


def unit(name: str, pid_file: str | None = None) -> Unit:
    """Return a unit whose files are in place."""
    return Unit(name, "daemon", f"/log/{name}", pid_file, ())


def write(path: str, target: Target, *facts: tuple[str, list[str]]) -> None:
    """Write a journal: its beginning, then events with the names of units."""
    journal = Journal(path)
    begin(journal, "fake", "host", target)
    for event, names in facts:
        journal.write(event, units=[facts_of(unit(name)) if event == "start" else name for name in names])
    journal.close()


def recalled(path: str) -> list[list[str]]:
    """Return the names of the units that a journal says are left."""
    record = recall(path)
    return [[unit.name for unit in step] for step in record.started] if record else []


def test_beginning_is_recalled(path: str, target: Target) -> None:
    """The manager, the machine and the place come back as they were."""
    write(path, target)
    record = recall(path)
    assert record is not None
    assert (record.manager, record.machine, record.opened, record.started) == ("fake", "host", False, ())
    assert record.target.state == target.state
    assert (record.target.directory, record.target.tags) == (target.directory, target.tags)
    assert record.target.stop_seconds == target.stop_seconds
    assert record.target.force_disable_user_change
    other = f"{path}.other"
    write(other, replace(target, force_disable_user_change=False))
    record = recall(other)
    assert record is not None
    assert not record.target.force_disable_user_change


def test_units_are_recalled_by_steps(path: str, target: Target) -> None:
    """Units come back step by step in their order; the manager is known to be open."""
    write(path, target, ("open", []), ("start", ["a", "b"]), ("start", ["c"]))
    record = recall(path)
    assert record is not None
    assert record.opened
    assert record.started == ((unit("a"), unit("b")), (unit("c"),))


def test_limits_of_stops_are_recalled(path: str, target: Target) -> None:
    """Each unit comes back with how long it may take to stop; one of an earlier version with that of the deployment."""
    write(path, target, ("start", ["former"]))
    journal = Journal(path)
    journal.write("start", **start_facts({unit("a"): 30.0, unit("b"): 0.5}))
    journal.close()
    record = recall(path)
    assert record is not None
    limits = {unit.name: record.limit_of(unit) for step in record.started for unit in step}
    assert limits == {"former": target.stop_seconds, "a": 30.0, "b": 0.5}


def test_signals_of_stops_are_recalled(path: str, target: Target) -> None:
    """Each unit comes back with the signal that asks it to stop; one of an earlier version is asked by SIGTERM."""
    write(path, target, ("start", ["former"]))
    journal = Journal(path)
    journal.write("start", **start_facts({unit("usual"): 1.0, replace(unit("own"), stop_signal="QUIT"): 1.0}))
    journal.close()
    record = recall(path)
    assert record is not None
    signals = {unit.name: unit.stop_signal for step in record.started for unit in step}
    assert signals == {"former": "TERM", "usual": "TERM", "own": "QUIT"}


def test_earlier_versions_read_the_units_of_a_start(path: str, target: Target) -> None:
    """The facts of units are those that earlier versions know, who refuse others; what is new stands beside them."""
    write(path, target)
    journal = Journal(path)
    journal.write("start", **start_facts({unit("a"): 30.0}), reason="new")
    journal.close()
    *_, start = events(path)
    assert [facts.keys() for facts in start["units"]] == [{"name", "mode", "log_file", "pid_file"}]


def test_stopped_units_are_left_out(path: str, target: Target) -> None:
    """What was stopped is not left, what was started again is, at the end."""
    write(path, target, ("start", ["a", "b"]), ("start", ["c"]), ("stopped", ["c", "a"]), ("start", ["a"]))
    assert recalled(path) == [["b"], ["a"]]


def test_line_that_is_refused_in_part_is_taken_back(path: str, target: Target) -> None:
    """Where a limit or a full disk cuts a line off, the error says which, and the journal ends before it."""
    journal = Journal(path)
    begin(journal, "fake", "host", target)
    before = Path(path).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            journal.write("start", units=[])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (refused.value.filename, Path(path).read_bytes()) == (path, before)
    journal.write("opened")
    journal.close()
    assert recall(path) is not None


def test_torn_last_line_ends_the_journal(path: str, target: Target) -> None:
    """A line that was not written to its end does not count, at whatever byte it was torn."""
    write(path, target, ("start", ["a"]), ("start", ["ü"]))
    content = Path(path).read_bytes()
    last = content.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(last, len(content) - 1):
        Path(path).write_bytes(content[:end])
        assert recalled(path) == [["a"]]


def test_empty_journal_says_nothing(path: str) -> None:
    """A journal without a beginning recalls nothing."""
    Journal(path).close()
    assert (recall(path), list(events(path))) == (None, [])


def test_each_event_is_on_disk_at_once(path: str) -> None:
    """An event can be read by others as soon as it is written, and only by its owner's."""
    journal = Journal(path)
    journal.write("open")
    assert list(events(path)) == [{"event": "open"}]
    journal.close()
    assert os.stat(path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("pid_file", [None, f"/run/{HOSTILE}"])
def test_unit_comes_back_without_its_files(path: str, target: Target, pid_file: str | None) -> None:
    """A unit comes back byte for byte, whatever its name holds, but for its files, which are in place."""
    journal = Journal(path)
    begin(journal, "fake", "host", target)
    journal.write("start", units=[facts_of(Unit(HOSTILE, "foreground", "/log", pid_file, (File("x", "y"),)))])
    journal.close()
    record = recall(path)
    assert record is not None
    assert record.started == ((Unit(HOSTILE, "foreground", "/log", pid_file, ()),),)
