"""Journals that somebody has damaged, and files that cannot grow: one clear error each, which says why."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_nixproc._persistence.journal import Journal, events, recall
from pytest_nixproc._planning.other_deployments import claims_in
from pytest_nixproc.errors import NixprocError

BEGIN = b'{"event": "begin", "manager": "sysvinit", "machine": "host"}\n'


@pytest.mark.parametrize(
    "text",
    [BEGIN, b'{"manager": "sysvinit"}\n', b'{"event": "begin", "state": [], "directory": 5}\n'],
    ids=["without a place", "without a kind", "of other types"],
)
def test_damaged_journal_is_one_error(tmp_path: Path, text: bytes) -> None:
    """A journal whose events lack something is an error of ours that names the file."""
    path = tmp_path / "journal"
    path.write_bytes(text)
    with pytest.raises(NixprocError, match=f"the journal {path} is damaged"):
        recall(str(path))


@pytest.mark.parametrize(
    "line", [b"5", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"event"'], ids=["5", "[]", "bytes", "deep", "torn"]
)
def test_line_that_is_no_event_ends_a_journal(tmp_path: Path, line: bytes) -> None:
    """What is no event is taken for a torn line, whatever it is: what stands before it counts."""
    path = tmp_path / "journal"
    path.write_bytes(BEGIN + line + b"\n" + BEGIN)
    assert [event["event"] for event in events(str(path))] == ["begin"]


@pytest.mark.parametrize("text", [b"{}\n", BEGIN + b'{"event": "claims", "ports": 5}\n', b'{"event": "begin"}\n'])
def test_damaged_journal_of_a_neighbour_is_no_obstacle(tmp_path: Path, text: bytes) -> None:
    """A deployment is planned beside another one whose journal cannot be understood."""
    path = tmp_path / "journal"
    path.write_bytes(text)
    assert list(claims_in(str(path), "host")) == []


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size (setrlimit(2))."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_limit_of_file_sizes_is_not_called_a_full_disk(tmp_path: Path) -> None:
    """A journal that may not grow says so, and has no torn line."""
    journal = Journal(str(tmp_path / "journal"))
    journal.write("open")
    with limited(40), pytest.raises(OSError, match="File too large") as caught:
        journal.write("start", units=["x" * 100])
    journal.close()
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, journal.path)
    assert json.loads(Path(journal.path).read_bytes()) == {"event": "open"}
    assert os.path.getsize(journal.path) < 40
