"""Whose word counts on the way to a deployment."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nixproc._persistence import trust
from pytest_nixproc._persistence.directory import DeploymentDirectory, default_state_root
from pytest_nixproc._persistence.journal import Journal, recall
from pytest_nixproc._persistence.trust import stranger_on_the_way, way
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.package import PACKAGE_ROOT

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


SHOW = """
import sys
sys.path.insert(0, sys.argv[1])
from pytest_nixproc._persistence.trust import stranger_on_the_way
print(stranger_on_the_way(sys.argv[2]))
"""


def test_way_goes_through_links(tmp_path: Path) -> None:
    """Links are yielded with all that they lead through, relative or absolute."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "relative").symlink_to("../a/./b")
    (tmp_path / "absolute").symlink_to(tmp_path / "a")
    found = list(way(f"{tmp_path}/absolute/relative"))
    start = found.index(f"{tmp_path}/absolute")
    assert found[: start + 1] == [*map(str, reversed(tmp_path.parents)), str(tmp_path), f"{tmp_path}/absolute"]
    end = [f"{tmp_path}/a", f"{tmp_path}/a/relative", f"{tmp_path}/a", f"{tmp_path}/a/b"]
    assert [place for place in found[start + 1 :] if place.startswith(f"{tmp_path}/")] == end


def give_away(path: Path) -> None:
    """Give a directory to another user."""
    os.chown(path, 4242, 4242)


def replace_by_foreign_link(path: Path) -> None:
    """Put another user's link to our own directory in its place."""
    path.rename(path.parent / "real")
    path.symlink_to("real")
    os.chown(path, 4242, 4242, follow_symlinks=False)


def open_to_a_group(path: Path) -> None:
    """Let a group write."""
    os.chown(path, -1, 4242)
    path.chmod(0o770)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(give_away, "belongs to user 4242", marks=root_only),
        pytest.param(replace_by_foreign_link, "belongs to user 4242", marks=root_only),
        (lambda path: path.chmod(0o777), "can be written by everybody"),
        pytest.param(open_to_a_group, "can be written by group 4242", marks=root_only),
    ],
)
def test_strangers_way_is_refused(tmp_path: Path, change: Callable[[Path], object], problem: str) -> None:
    """A state root below something that another user could exchange is refused by name, and nothing is left in it."""
    (tmp_path / "theirs" / "root").mkdir(parents=True)
    change(tmp_path / "theirs")
    with pytest.raises(DeploymentError, match=f"cannot be trusted: {tmp_path}/theirs .*{problem}") as caught:
        DeploymentDirectory.allocate(f"{tmp_path}/theirs/root").make()
    assert "--nixproc-state-root" in caught.value.remedy
    assert os.listdir(tmp_path / "theirs" / "root") == []


def test_nothing_is_made_below_what_is_strangers(tmp_path: Path) -> None:
    """A state root that would have to be made there is refused before a part of it is, and the default is named."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o777)
    with pytest.raises(DeploymentError, match=f"cannot be trusted: {tmp_path}/theirs ") as caught:
        DeploymentDirectory.allocate(f"{tmp_path}/theirs/new/root").make()
    assert f"leave --nixproc-state-root out, for the default {default_state_root()}" in caught.value.remedy
    assert os.listdir(tmp_path / "theirs") == []


def test_no_umask_opens_what_we_make(tmp_path: Path) -> None:
    """Directories that are missing above a state root can be written by nobody else, and so are not refused."""
    before = os.umask(0)
    try:
        DeploymentDirectory.allocate(f"{tmp_path}/new/root").make()
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o022 == 0


def access_list(named: tuple[int, int], mask: int) -> bytes:
    """Return an access control list as Linux keeps it, with an entry of a kind for one more number, 4242, that writes.

    Both are rights; those of the entry count as far as the mask has them.
    """
    kind, rights = named
    entries = [(1, 7, -1), (2, 7, 4242), (4, 0, -1), (8, 7, 4242), (16, mask, -1), (32, 0, -1)]
    kept = [entry for entry in entries if entry[0] not in (2, 8) or entry[0] == kind]
    packed = (struct.pack("<HHi", which, rights if which == kind else what, number) for which, what, number in kept)
    return struct.pack("<I", 2) + b"".join(packed)


@pytest.mark.parametrize(
    ("kind", "rights", "mask", "problem"),
    [
        (2, 7, 7, "can be written by user 4242"),
        (8, 7, 7, "can be written by group 4242"),
        (2, 5, 7, ""),
        (2, 7, 5, ""),
    ],
)
def test_access_list_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, rights: int, mask: int, problem: str
) -> None:
    """Whom an access control list lets write can exchange things too, though the mode names the owner's own group."""
    monkeypatch.setattr(trust, "is_private", lambda group: group == os.getegid())
    try:
        os.setxattr(tmp_path, trust.ACL, access_list((kind, rights), mask))
    except OSError:
        pytest.skip("the file system has no access control lists")
    assert stranger_on_the_way(str(tmp_path)) == (problem and f"{tmp_path} {problem}")


def test_usual_ways_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sticky directories, our own links, and what our private group can write are no reason to refuse."""
    (tmp_path / "sticky" / "root").mkdir(parents=True)
    (tmp_path / "sticky").chmod(0o1777)
    (tmp_path / "link").symlink_to("sticky")
    (tmp_path / "sticky" / "root").chmod(0o775)
    monkeypatch.setattr(trust, "is_private", lambda group: group == os.getegid())
    assert stranger_on_the_way(f"{tmp_path}/link/root") == ""
    assert stranger_on_the_way(tempfile.gettempdir()) == ""


@pytest.mark.parametrize("what", ["link", "file of others"])
def test_usual_root_has_to_be_a_directory_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """What another has put in the place of the usual state root is not followed, wherever it leads."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if what == "link":
        os.symlink("elsewhere", default_state_root())
    else:
        Path(default_state_root()).mkdir()
        Path(default_state_root()).chmod(0o777)
    with pytest.raises(DeploymentError, match=r"cannot be trusted: .* (is no directory|by everybody)"):
        DeploymentDirectory.allocate(None).make()
    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(default_state_root()) == []


def test_namespace_of_one_user(tmp_path: Path) -> None:
    """Where the kernel shows all others as the overflow user, because they have no number there, they may be root."""
    enter = ("unshare", "--map-root-user")
    if not shutil.which("unshare") or subprocess.run([*enter, "true"], check=False, capture_output=True).returncode:
        pytest.skip("there are no user namespaces")
    (tmp_path / "theirs").mkdir()
    if os.geteuid() == 0:
        # As an ordinary user's namespace shows what is root's.
        os.chown(tmp_path / "theirs", 4242, 4242)
    argv = [*enter, sys.executable, "-c", SHOW, PACKAGE_ROOT, f"{tmp_path}/theirs"]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout == "\n"


@root_only
def test_overflow_user_is_not_root_elsewhere(tmp_path: Path) -> None:
    """Without such a namespace, it is a user like any other."""
    os.chown(tmp_path, 65534, 65534)
    assert stranger_on_the_way(str(tmp_path)) == f"{tmp_path} belongs to user 65534"


@pytest.mark.parametrize("planted", [pytest.param("theirs", marks=root_only), "link", "pipe"])
def test_planted_journal_is_not_believed(tmp_path: Path, planted: str) -> None:
    """A journal that belongs to somebody else, or is a link or pipe, is an error before anything of it is read."""
    path = tmp_path / "journal"
    Journal(str(tmp_path / "real")).close()
    if planted == "link":
        path.symlink_to("real")
    elif planted == "pipe":
        os.mkfifo(path)
    else:
        (tmp_path / "real").rename(path)
        os.chown(path, 4242, 4242)
    with pytest.raises(OSError, match=r"belongs to user 4242|symbolic links|no regular file"):
        recall(str(path))
