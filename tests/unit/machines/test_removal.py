"""Removing directories: what is mounted, linked, closed or immutable in them, how deep they are, and races."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_nixproc.errors import Unremovable
from pytest_nixproc.machines import removal
from pytest_nixproc.machines.package import PACKAGE_ROOT
from pytest_nixproc.machines.removal import remove_tree
from tests.open_interpreter import USER

ENTER = ("unshare", "--mount", "--map-root-user", "--propagation", "private", "/bin/sh", "-ec")

MOUNTED = """
mount $1 "$4"
cd /
"$2" -c 'import sys; sys.path.insert(0, sys.argv[1])
from pytest_nixproc.machines.host import Host
try: Host().files.remove(sys.argv[2])
except Exception as error: print(error)' "$3" "$5"
"""

AS_USER = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
from pytest_nixproc.machines.host import Host
host = Host()
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(*[int(sys.argv[2])] * 3)
    os.setresuid(*[int(sys.argv[2])] * 3)
    # Who changes users is not shown its own files in /proc, unless it says so (PR_SET_DUMPABLE).
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
try: host.files.remove(sys.argv[3])
except Exception as error: print(error)
"""


def removed(options: str, mount_point: Path, path: Path) -> str:
    """Remove a path while something is mounted, in a namespace of its own; return the error."""
    if not shutil.which("unshare") or subprocess.run([*ENTER, "true"], check=False, capture_output=True).returncode:
        pytest.skip("there are no mount namespaces")
    words = ("sh", options, sys.executable, PACKAGE_ROOT, str(mount_point), str(path))
    return subprocess.run([*ENTER, MOUNTED, *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("inner", ["var/lib/data", "a b"])
def test_what_is_mounted_is_spared(tmp_path: Path, inner: str) -> None:
    """Another directory of the same disk that is mounted stays, and the journal with it; all else is removed."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("")
    root = tmp_path / "root"
    (root / inner).mkdir(parents=True)
    for name in ("journal", "another", "var/log/web.log"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    error = removed(f"--bind {tmp_path}/precious", root / inner, root)
    assert error == (
        f"cannot remove {root / inner}: something is mounted on it\n"
        f"fix: umount {root / inner}; then nixproc reap (or nixproc end, for a kept system)\n"
    )
    assert (tmp_path / "precious" / "thesis").exists()
    left = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert left == {"journal", inner, *(str(path) for path in Path(inner).parents if str(path) != ".")}


def test_file_system_of_its_own_is_spared(tmp_path: Path) -> None:
    """The same for what has another device, and for the directory itself."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "journal").write_text("")
    assert removed("-t tmpfs tmpfs", root, root).startswith(f"cannot remove {root}: something is mounted on it\n")
    assert (root / "journal").exists()


def test_mounted_file_is_spared(tmp_path: Path) -> None:
    """A file that is mounted over one of the directory is named, and keeps what it holds."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "settings").touch()
    (tmp_path / "precious").write_text("thesis")
    error = removed(f"--bind {tmp_path}/precious", root / "settings", root)
    assert error.startswith(f"cannot remove {root}/settings: something is mounted on it\n")
    assert (tmp_path / "precious").read_text() == "thesis"


def test_what_is_mounted_elsewhere_is_no_obstacle(tmp_path: Path) -> None:
    """A mount beside or above what is removed does not keep it."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root-2").mkdir()
    assert removed("-t tmpfs tmpfs", tmp_path / "root-2", tmp_path / "root") == ""
    assert not (tmp_path / "root").exists()


def test_octal_numbers_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mount points are read as the kernel writes them."""
    monkeypatch.setattr(removal, "HAS_PROC", True)
    monkeypatch.setattr(removal, "read_facts", lambda _: rb"36 35 98:0 /root /a\040b\134\012 rw - ext4 /dev/root rw")
    assert removal.mount_points() == {"/a b\\\n"}


def test_nested_mounts_are_unmounted_from_within(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted within what is mounted comes first in the command that helps."""
    monkeypatch.setattr(removal, "mount_points", lambda: {"/r/data", "/r/data/inner", "/r/database"})
    first, _ = removal.remedies({"/r/data": removal.Cause(removal.MOUNTED, "umount")})
    assert first == "umount /r/data/inner /r/data"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Return a directory of somebody else's, with a file."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("")
    return tmp_path / "precious"


def test_links_are_removed_and_not_followed(tmp_path: Path, precious: Path) -> None:
    """Links to directories, files and nowhere go; what they lead to stays, also where the path itself is a link."""
    root = tmp_path / "root"
    root.mkdir()
    for name, target in {"directory": precious, "file": precious / "thesis", "nowhere": Path("/nowhere")}.items():
        (root / name).symlink_to(target)
    remove_tree(str(root))
    assert not root.exists()
    root.symlink_to(precious)
    remove_tree(str(root))
    assert not root.is_symlink()
    assert (precious / "thesis").exists()


@pytest.mark.parametrize("when", ["before it is opened", "while it is emptied"])
@pytest.mark.parametrize("which", ["root", "root/a", "root/a/b"])
def test_a_link_in_the_place_of_a_directory_leads_nowhere(
    tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, which: str, when: str
) -> None:
    """A directory that is exchanged for a link between two steps costs nothing that the link leads to."""
    inner = tmp_path / "root" / "a" / "b"
    inner.mkdir(parents=True)
    for directory in (inner, inner.parent, inner.parent.parent):
        (directory / "thesis").write_text("")
    swapped = tmp_path / which
    as_it_was = swapped.stat().st_ino
    really = removal.mount_at

    def swap() -> None:
        if not swapped.is_symlink() and swapped.exists():
            swapped.rename(tmp_path / "moved")
            swapped.symlink_to(precious)

    def before_opening(_: removal.Removal, name: str) -> int:
        if name == swapped.name:
            swap()
        return os.open(name, removal.DIRECTORY, dir_fd=_.open)

    def while_emptying(descriptor: int) -> str:
        if os.fstat(descriptor).st_ino == as_it_was:
            swap()
        return really(descriptor)

    if when == "before it is opened":
        monkeypatch.setattr(removal.Removal, "_opened", before_opening)
    else:
        monkeypatch.setattr(removal, "mount_at", while_emptying)
    try:
        remove_tree(str(tmp_path / "root"))
    except Unremovable as error:
        # The way up did not lead back; or what could not be opened was no directory any more.
        assert str(tmp_path / which) in str(error)  # noqa: PT017 - either outcome is safe
    assert (tmp_path / "moved").exists(), "nothing was exchanged"
    assert (precious / "thesis").exists()


def test_directory_that_is_moved_away_while_it_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way up from a directory that has been moved is not taken: nothing is removed in its new place."""
    inner = tmp_path / "root" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b").mkdir()
    (tmp_path / "root" / "journal").write_text("")
    as_it_was = inner.stat().st_ino
    really = removal.mount_at

    def move(descriptor: int) -> str:
        if os.fstat(descriptor).st_ino == as_it_was:
            inner.rename(tmp_path / "elsewhere" / "c")
        return really(descriptor)

    monkeypatch.setattr(removal, "mount_at", move)
    remove_tree(str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["b", "c"]


def test_depth_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree deeper than recursions go is removed, with one directory open at a time."""
    # Disks take seconds for it.
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    top = tempfile.mkdtemp(dir=in_memory)
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d" * 10, dir_fd=descriptor)
        below = os.open("d" * 10, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    most = max(map(int, os.listdir("/dev/fd"))) + 5
    really = removal.mount_at
    monkeypatch.setattr(removal, "mount_at", lambda number: really(number) if number < most else "too many are open")
    remove_tree(top)
    assert not os.path.exists(top)


@contextmanager
def flagged(path: Path, letter: str) -> Iterator[None]:
    """Have a file carry a flag for the time of a ``with`` block; skip where that cannot be."""
    chattr = shutil.which("chattr")
    if not chattr or subprocess.run([chattr, f"+{letter}", path], check=False).returncode:
        pytest.skip("files cannot be made immutable here")
    try:
        yield
    finally:
        subprocess.run([chattr, f"-{letter}", path], check=True)


@pytest.mark.parametrize(("letter", "meaning"), [("i", "immutable"), ("a", "append-only")])
@pytest.mark.parametrize("which", ["var/kept", "var"])
def test_immutable_files_are_named(tmp_path: Path, which: str, letter: str, meaning: str) -> None:
    """What is immutable is named once, by its full path and with the command; all else is removed, and later it too."""
    root = tmp_path / "root"
    (root / "var").mkdir(parents=True)
    for name in ("var/kept", "var/other", "log", "journal"):
        (root / name).write_text("")
    with flagged(root / which, letter):
        with pytest.raises(Unremovable) as caught:
            remove_tree(str(root))
        assert str(caught.value) == (
            f"cannot remove {root / which}: it is {meaning}\n"
            f"fix: chattr -{letter} {root / which}; then nixproc reap (or nixproc end, for a kept system)"
        )
        assert sorted(os.listdir(root)) == ["journal", "var"]
        assert (root / "var" / "other").exists() == (which == "var")
    remove_tree(str(root))
    assert not root.exists()


@pytest.fixture
def users_place() -> Iterator[Path]:
    """Return a directory of an ordinary user: of another one, where root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="u") as directory:
        if os.geteuid() == 0:
            os.chown(directory, USER, USER)
        yield Path(directory)


def removed_by_user(path: Path) -> str:
    """Remove a path as an ordinary user; return the error."""
    words = [sys.executable, "-c", AS_USER, PACKAGE_ROOT, str(USER), str(path)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd="/")
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("mode", [0o555, 0o444, 0o000])
def test_closed_directories_of_ones_own_are_opened(users_place: Path, mode: int) -> None:
    """Files in directories that their own user cannot write, list or enter are removed all the same."""
    inner = users_place / "root" / "store" / "item"
    inner.mkdir(parents=True)
    (inner / "file").write_text("")
    for path in (inner / "file", inner, inner.parent, inner.parent.parent):
        if os.geteuid() == 0:
            os.chown(path, USER, USER)
        path.chmod(mode)
    assert removed_by_user(users_place / "root") == ""
    assert os.listdir(users_place) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_files_of_others_are_named(users_place: Path) -> None:
    """A directory of another user in one's own is named once, with its owner; all else is removed."""
    foreign = users_place / "root" / "foreign"
    foreign.mkdir(parents=True)
    for name in ("one", "two"):
        (foreign / name).write_text("")
    (users_place / "root" / "own").write_text("")
    for path in (users_place / "root", users_place / "root" / "own"):
        os.chown(path, USER, USER)
    error = removed_by_user(users_place / "root")
    assert error.startswith(f"cannot remove {foreign}: it belongs to user 0\nfix: have that user, or root, remove ")
    assert os.listdir(users_place / "root") == ["foreign"]
    assert sorted(os.listdir(foreign)) == ["one", "two"]


def failing(monkeypatch: pytest.MonkeyPatch, name: str, fails: Callable[[str], int]) -> None:
    """Have a call of the operating system fail for some names."""
    really = getattr(os, name)

    def call(path: str, *arguments: object, **keywords: object) -> object:
        if number := fails(path):
            raise OSError(number, os.strerror(number), path)
        return really(path, *arguments, **keywords)

    monkeypatch.setattr(os, name, call)


def test_many_obstacles_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much stays, the error is one, names the first of it, and counts the rest."""
    for number in range(30):
        (tmp_path / "root" / f"d{number}").mkdir(parents=True)
        (tmp_path / "root" / f"d{number}" / "bad").write_text("")
    failing(monkeypatch, "unlink", lambda name: errno.EIO if name == "bad" else 0)
    with pytest.raises(Unremovable) as caught:
        remove_tree(str(tmp_path / "root"))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"cannot remove 30 paths in {tmp_path}/root"
    assert lines[-2] == "  and 10 more"
    assert all(line.endswith("/bad: Input/output error") for line in lines[1:-2])
    assert len(lines) == 23


def test_what_is_made_meanwhile_is_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody makes in a directory that was just emptied goes as well; for whoever goes on, it is told."""
    root = tmp_path / "root"
    root.mkdir()
    made: list[str] = []

    def write_again(name: str) -> int:
        if len(made) < at_most:
            (root / f"new-{len(made)}").write_text("")
            made.append(name)
        return 0

    at_most = 2
    failing(monkeypatch, "rmdir", write_again)
    remove_tree(str(root))
    assert not root.exists()
    root.mkdir()
    at_most = 100
    with pytest.raises(Unremovable, match=f"cannot remove {root}: something is still made in it"):
        remove_tree(str(root))
