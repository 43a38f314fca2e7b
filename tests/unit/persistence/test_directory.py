"""The directory of a deployment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixproc._persistence.directory import DeploymentDirectory, default_state_root
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.package import PACKAGE_ROOT

ENTER = ("unshare", "--mount", "--map-root-user", "--propagation", "private", "/bin/sh", "-ec")
REFUSED = """
mount -t tmpfs -o noexec tmpfs "$1"
exec "$2" -c '
import sys
sys.path.insert(0, sys.argv[1])
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc.errors import DeploymentError
try:
    DeploymentDirectory.allocate(sys.argv[2]).refuse_noexec()
except DeploymentError as error:
    print(error)
' "$3" "$4"
"""


def mode(path: str) -> int:
    """Return the permissions of a directory."""
    return os.stat(path).st_mode & 0o777


def test_places_are_different_and_short(tmp_path: Path) -> None:
    """Each deployment has a place of its own, with a short name, which choosing does not make."""
    directories = {DeploymentDirectory.allocate(str(tmp_path)) for _ in range(20)}
    assert len(directories) == 20
    assert all(
        len(directory.identity) <= 8 and directory.root == f"{tmp_path}/{directory.identity}"
        for directory in directories
    )
    assert os.listdir(tmp_path) == []


def test_relative_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state root relative to the working directory becomes an absolute path."""
    monkeypatch.chdir(tmp_path)
    assert DeploymentDirectory.allocate("here").root.startswith(f"{tmp_path}/here/")


def test_what_lies_where() -> None:
    """Journal, generated files and state lie in the directory, which is also the mark of the processes."""
    directory = DeploymentDirectory("/r/abc")
    assert (directory.journal, directory.profile, directory.state.state_dir) == (
        "/r/abc/journal",
        "/r/abc/profile",
        "/r/abc/var",
    )
    assert (directory.identity, directory.tag) == ("abc", "NIXPROC_DEPLOYMENT=/r/abc")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_look_in(tmp_path: Path, umask: int) -> None:
    """The state root and the deployment's directory are made for their owner alone, whatever the umask."""
    directory = DeploymentDirectory.allocate(f"{tmp_path}/root")
    before = os.umask(umask)
    try:
        directory.make()
    finally:
        os.umask(before)
    assert (mode(f"{tmp_path}/root"), mode(directory.root)) == (0o700, 0o700)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Return a directory that others can pass through, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="np") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_others_can_pass_where_they_have_to(open_place: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    """Where processes run as others, they can pass through our directories, and look into none; others' stay closed."""
    monkeypatch.setattr(tempfile, "tempdir", str(open_place))
    DeploymentDirectory.allocate(None).make()
    directory = DeploymentDirectory.allocate(None)
    before = os.umask(umask)
    try:
        directory.make(for_others=True)
    finally:
        os.umask(before)
    assert (mode(default_state_root()), mode(directory.root)) == (0o711, 0o711)


def test_way_that_is_closed(open_place: Path) -> None:
    """A directory above the state root through which others cannot pass is named, and left as it is."""
    (open_place / "closed").mkdir(mode=0o700)
    with pytest.raises(DeploymentError, match=f"other users cannot pass through {open_place}/closed,") as caught:
        DeploymentDirectory.allocate(f"{open_place}/closed/root").make(for_others=True, within="/")
    assert "--nixproc-state-root" in caught.value.remedy
    assert (mode(f"{open_place}/closed"), os.listdir(f"{open_place}/closed/root")) == (0o700, [])


def test_way_that_may_be_closed(open_place: Path) -> None:
    """Where nobody has to come, others can pass through what is ours alone, and a closed way above it is no error."""
    (open_place / "closed").mkdir(mode=0o700)
    directory = DeploymentDirectory.allocate(f"{open_place}/closed/root")
    directory.make(for_others=True)
    assert (mode(f"{open_place}/closed"), mode(directory.root)) == (0o700, 0o711)


def test_root_that_cannot_be_written(tmp_path: Path) -> None:
    """A state root where no directory can be made is an error that says why and what to choose."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DeploymentError, match=f"cannot make a state directory in {tmp_path}/file/x: Not a dir"
    ) as caught:
        DeploymentDirectory.allocate(f"{tmp_path}/file/x").make()
    assert "--nixproc-state-root" in caught.value.remedy


def test_root_in_which_nothing_can_be_executed(tmp_path: Path) -> None:
    """A state root, or what will be one, is refused by its mount point where that is noexec, also through a link."""
    if not shutil.which("unshare") or subprocess.run([*ENTER, "true"], check=False, capture_output=True).returncode:
        pytest.skip("there are no mount namespaces")
    (tmp_path / "mount").mkdir()
    (tmp_path / "link").symlink_to("mount")
    for root in (f"{tmp_path}/mount/a/b", f"{tmp_path}/link"):
        argv = [*ENTER, REFUSED, "sh", str(tmp_path / "mount"), sys.executable, PACKAGE_ROOT, root]
        told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert told.startswith(f"nothing can be executed in state root {root}: {tmp_path}/mount is mounted noexec\n")
        assert "--nixproc-state-root" in told
    DeploymentDirectory.allocate(f"{tmp_path}/mount/a/b").refuse_noexec()


def test_root_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual state root must not be somebody else's, who could put things there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert default_state_root() == f"{tmp_path}/nixproc-4242"
    with pytest.raises(DeploymentError, match="nixproc-4242 belongs to another user") as caught:
        DeploymentDirectory.allocate(None).make()
    assert "--nixproc-state-root" in caught.value.remedy
    assert os.listdir(default_state_root()) == []


@pytest.mark.parametrize("then", ["nothing", "another"])
def test_root_that_is_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """What was made through a link, which is gone a moment later, is removed from where it led to."""
    elsewhere, usual = tmp_path / "elsewhere", tmp_path / "root"
    calls: list[list[str]] = []
    elsewhere.mkdir()
    mkdir = os.mkdir

    def exchanging(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        mkdir(path, mode, dir_fd=dir_fd)
        if dir_fd is not None and not calls:
            calls.append(os.listdir(elsewhere))
            usual.unlink()
            if then == "another":
                mkdir(usual)

    usual.symlink_to(elsewhere)
    monkeypatch.setattr(os, "mkdir", exchanging)
    directory = DeploymentDirectory.allocate(str(usual))
    if then == "another":
        with pytest.raises(DeploymentError, match="cannot be trusted: somebody has put another directory in its place"):
            directory.make()
    else:
        directory.make()
        assert os.listdir(usual) == [directory.identity]
    assert calls == [[directory.identity]]
    assert os.listdir(elsewhere) == []


def test_leaving_removes_the_usual_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual state root goes with its last deployment, and not before."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = DeploymentDirectory.allocate(None), DeploymentDirectory.allocate(None)
    first.make()
    second.make()
    os.rmdir(first.root)
    first.leave()
    assert os.listdir(default_state_root()) == [second.identity]
    os.rmdir(second.root)
    for _ in range(2):
        second.leave()
    assert os.listdir(tmp_path) == []


def test_leaving_spares_the_users_root(tmp_path: Path) -> None:
    """A state root that the user has chosen is the user's, even when it is empty."""
    directory = DeploymentDirectory.allocate(str(tmp_path))
    directory.make()
    os.rmdir(directory.root)
    directory.leave()
    assert os.path.isdir(tmp_path)
