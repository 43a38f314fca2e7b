"""Directories and files that are made below a directory in which others may write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines import provision
from pytest_nixproc.machines.provision import provide
from pytest_nixproc.values.state_files import StateDirectory, StateFile


def mode_of(path: Path) -> int:
    """Return the permissions of a file or directory."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_everything_has_its_mode(tmp_path: Path) -> None:
    """What is there has its mode under any umask, and what is made on the way lets others through."""
    directory = StateDirectory(path=f"{tmp_path}/a/b", mode=0o2770)
    file = StateFile(path=f"{tmp_path}/a/b/c/file", text="naïve \udcff\n", mode=0o644)
    before = os.umask(0o077)
    try:
        provide(str(tmp_path), [directory], [file], [])
    finally:
        os.umask(before)
    assert (tmp_path / "a/b/c/file").read_bytes() == "naïve ".encode() + b"\xff\n"
    assert [mode_of(tmp_path / path) for path in ("a", "a/b", "a/b/c", "a/b/c/file")] == [0o755, 0o2770, 0o755, 0o644]
    assert os.listdir(tmp_path / "a/b/c") == ["file"]


def test_what_is_there_is_made_anew(tmp_path: Path) -> None:
    """Modes and texts are those of the last time, obsolete files are gone, and all else is left."""
    path = tmp_path / "a"
    provide(str(tmp_path), [StateDirectory(path=str(path))], [StateFile(path=f"{path}/{n}", text=n) for n in "xy"], [])
    (path / "data").write_text("data")
    file = StateFile(path=f"{path}/x", text="new", mode=0o640)
    provide(str(tmp_path), [StateDirectory(path=str(path), mode=0o700)], [file], [f"{path}/y", f"{path}/no/z"])
    assert {item.name: item.read_text() for item in path.iterdir()} == {"x": "new", "data": "data"}
    assert (mode_of(path), mode_of(path / "x")) == (0o700, 0o640)


@pytest.mark.parametrize("kind", ["directory", "on the way", "file", "obsolete"])
def test_no_link_is_followed(tmp_path: Path, kind: str) -> None:
    """Whoever may write there gains nothing by a link: what it leads to stays as it is."""
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir(0o700)
    (elsewhere / "file").write_text("old")
    (elsewhere / "file").chmod(0o600)
    (place / "a").symlink_to(elsewhere)
    (place / "link").symlink_to(elsewhere / "file")
    if kind == "file":
        provide(str(place), [], [StateFile(path=f"{place}/link", text="new", mode=0o666)], [])
        assert not (place / "link").is_symlink()
    else:
        directories = [StateDirectory(path=f"{place}/a", mode=0o777)] if kind == "directory" else []
        files = [StateFile(path=f"{place}/a/file", text="new")] if kind == "on the way" else []
        obsolete = [f"{place}/a/file"] if kind == "obsolete" else []
        with pytest.raises(OSError, match=f"{place}/a"):
            provide(str(place), directories, files, obsolete)
    assert (elsewhere / "file").read_text() == "old"
    assert (mode_of(elsewhere), mode_of(elsewhere / "file")) == (0o700, 0o600)


def test_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is there as a whole or as it was before."""
    (tmp_path / "file").write_text("old")
    with pytest.raises(MachineError, match=r"cannot have its owner.*nobody-of-this-name"):
        provide(str(tmp_path), [], [StateFile(path=f"{tmp_path}/file", text="new", user="nobody-of-this-name")], [])
    assert {item.name: item.read_text() for item in tmp_path.iterdir()} == {"file": "old"}
    monkeypatch.setattr(provision, "settle", lambda *_: os.stat("/nowhere"))
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/new"):
        provide(str(tmp_path), [], [StateFile(path=f"{tmp_path}/new", text="new")], [])
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_group_is_the_owners_own_unless_another_is_named() -> None:
    """The numbers are those of the machine's accounts; without a user, the owner stays who makes it."""
    root = StateFile(path="/x", text="", user="root")
    assert provision.ids_of(root) == (0, 0)
    assert provision.ids_of(StateFile(path="/x", text="", group="root")) == (-1, 0)
    with pytest.raises(MachineError, match="/x cannot have its owner"):
        provision.ids_of(StateFile(path="/x", text="", user="root", group="nobody-of-this-name"))
