"""What has appeared in directories since another file has changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_nixproc.machines.process_info import created_since


@pytest.fixture
def reference(tmp_path: Path) -> str:
    """Return a file that has changed before all that is made after it, however coarse the clock of the disk is."""
    path = tmp_path / "reference"
    path.touch()
    earlier = time.time_ns() - 10**9
    os.utime(path, ns=(earlier, earlier))
    return str(path)


def test_what_is_new(tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """New files are found in a directory, in those in it, and at home; with their user, and each once."""
    home = tmp_path / "home"
    (home / "below" / "deep").mkdir(parents=True)
    for path in (home / "a", home / "below" / "b", home / "below" / "deep" / "too-deep"):
        path.touch()
    os.mkfifo(home / "fifo")
    monkeypatch.setenv("HOME", str(home))
    found = list(created_since(["~", str(home)], [], reference))
    assert {os.path.relpath(path, home) for path, _ in found} == {"a", "below/b", "fifo"}
    assert {uid for _, uid in found} == {os.getuid()}
    assert len(found) == 3


def test_what_is_old(tmp_path: Path, reference: str) -> None:
    """A directory that has not changed is not read, and one that is missing is empty."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").touch()
    os.utime(place, ns=(0, 0))
    assert list(created_since([], [str(place), str(place / "file"), str(place / "no")], reference)) == [
        (str(place / "file"), os.getuid())
    ]
    assert list(created_since([str(place), str(tmp_path / "missing")], [], reference)) == []
    assert list(created_since([str(tmp_path)], [], str(tmp_path / "missing"))) == []
