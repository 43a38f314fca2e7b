"""Leases: written by their owners, gone with them, and never trusted where others can write."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_nixproc._persistence import leases as module
from pytest_nixproc._persistence.leases import FREE_PORTS, DeploymentLease, Leases
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc.errors import NixprocError

ME = ProcessIdentity.current()
GONE = replace(ME, started="1")
OTHER_USER = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return the directory around the leases, which is not made yet."""
    return tmp_path / "top"


@pytest.fixture
def leases(top: Path) -> Leases:
    """Return leases of the test's own."""
    return Leases(f"{top}/leases")


def everything_free(_: int) -> bool:
    """Tell that nobody listens anywhere."""
    return True


def test_claims_are_read_back(leases: Leases) -> None:
    """A lease is found by its root with everything that it says, and is gone when it is given back."""
    lease = DeploymentLease("/srv/a", (ME, GONE), guardian=GONE, run="r", phase="starting")
    leases.save(lease)
    assert leases.all() == [lease]
    assert leases.lease_of("/srv/a") == lease
    assert leases.lease_of("/srv/b") is None
    leases.remove("/srv/a")
    assert leases.all() == []


def test_directory_is_ours_alone_and_goes_with_the_last_lease(leases: Leases, top: Path) -> None:
    """The directory and its files are for their user only; nothing of them is left in the end."""
    leases.save(DeploymentLease("/srv/a", (ME,)))
    with leases.locked() as ports:
        ports.lease("/srv/a", ME, [30000])
    for path in (top, *top.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    leases.remove("/srv/a")
    assert not top.exists()


def test_reading_makes_nothing(leases: Leases, top: Path) -> None:
    """Who only looks leaves no directory, and giving back what nobody has is no error."""
    assert leases.all() == []
    assert leases.corrupt() == []
    leases.remove("/srv/a")
    leases.leave()
    assert not top.exists()


@pytest.mark.parametrize(
    ("lease", "expected"),
    [
        (DeploymentLease("/a", (ME,)), False),
        (DeploymentLease("/a", (GONE,)), True),
        (DeploymentLease("/a", (GONE, ME)), False),
        (DeploymentLease("/a", (GONE,), guardian=ME), False),
        (DeploymentLease("/a", (GONE,), guardian=GONE), True),
        (DeploymentLease("/a", (), guardian=None), True),
        (DeploymentLease("/a", (GONE,), kept=True), False),
    ],
)
def test_abandoned_leases(lease: DeploymentLease, expected: bool) -> None:  # noqa: FBT001 - a table of values
    """A deployment is abandoned when all who use or guard it are gone, unless it is kept on purpose."""
    assert lease.is_abandoned is expected


def test_ports_of_the_living_are_leased(leases: Leases) -> None:
    """A leased port is another deployment's, not one's own; it is free again when it is released."""
    with leases.locked() as ports:
        ports.lease("/srv/a", ME, [30000])
    with leases.locked() as ports:
        assert ports.is_leased(30000, but_for="/srv/b")
        assert not ports.is_leased(30000, but_for="/srv/a")
        assert not ports.is_leased(30001, but_for="/srv/b")
        ports.release("/srv/a")
    with leases.locked() as ports:
        assert not ports.is_leased(30000, but_for="/srv/b")


def test_ports_of_the_dead_are_free(leases: Leases) -> None:
    """A lease ends with its owner when its deployment's directory is not there."""
    with leases.locked() as ports:
        ports.lease("/srv/nowhere", GONE, [30000])
        ports.lease("/srv/b", ME, [30001])
    with leases.locked() as ports:
        assert set(ports.leases) == {30001}


def test_ports_of_what_is_left_stay_leased(leases: Leases, tmp_path: Path) -> None:
    """While a dead owner's deployment is not taken down, something may still listen: its ports stay leased."""
    with leases.locked() as ports:
        ports.lease(str(tmp_path), GONE, [30000])
    with leases.locked() as ports:
        assert ports.is_leased(30000, but_for="/srv/b")


def test_ports_are_leased_one_after_the_other(leases: Leases) -> None:
    """Ports go on from the last one, skip leased ones and those on which somebody listens, and begin anew behind."""
    with leases.locked() as ports:
        ports.last = FREE_PORTS.stop - 2
        ports.lease("/srv/a", ME, [FREE_PORTS.stop - 1, FREE_PORTS.start])
        found = [ports.lease_next("/srv/b", ME, lambda port: port != FREE_PORTS.start + 1, most) for most in (2, 1)]
    assert found == [[FREE_PORTS.start + 2, FREE_PORTS.start + 3], [FREE_PORTS.start + 4]]


def test_fewer_ports_than_asked_for(leases: Leases) -> None:
    """Where not as many are free as somebody would like to have, there are those that are."""
    with leases.locked() as ports:
        ports.last = FREE_PORTS.start
        assert ports.lease_next("/srv/a", ME, lambda port: port <= FREE_PORTS.start + 1, 3) == [
            FREE_PORTS.start + 1,
            FREE_PORTS.start,
        ]


def test_no_port_is_an_error(leases: Leases) -> None:
    """When every port is in use, the error says from where to where."""
    text = f"no port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free"
    with leases.locked() as ports, pytest.raises(NixprocError, match=text):
        ports.lease_next("/srv/a", ME, lambda _: False, 1)


def test_nothing_is_leased_when_the_block_fails(leases: Leases, top: Path) -> None:
    """What was leased before an error is not kept; the lock is free again, and no file is left."""

    def fail() -> None:
        with leases.locked() as ports:
            ports.lease_next("/srv/a", ME, everything_free, 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with leases.locked() as ports:
        assert ports.leases == {}
    leases.leave()
    assert not top.exists()


CORRUPT = [
    b"",
    b"{",
    b"\xff\xfe",
    b"\0" * 100,
    b"[]",
    b"null",
    b'{"ports": []}',
    b'{"ports": {"x": ["/a", {}]}, "last": 1}',
    b'{"ports": {"1": ["/a"]}, "last": 1}',
    b'{"ports": {}, "last": null}',
    b'{"ports": {"1": ["/a", {"pid": 1e999, "started": "", "boot": ""}]}, "last": 1}',
    b'{"ports": {"1": ["/a", {"pid": -1, "boot": ""}]}, "last": 1}',
]


@pytest.mark.parametrize("content", CORRUPT)
def test_corrupt_leases_of_ports_are_one_clear_error(leases: Leases, content: bytes) -> None:
    """A file that cannot be read is named, with the remedy; it is never taken for empty, nor overwritten."""
    leases.save(DeploymentLease("/srv/a", (ME,)))
    Path(leases.ports_file).write_bytes(content)
    with pytest.raises(NixprocError, match="cannot be read") as error, leases.locked():
        raise AssertionError
    assert leases.ports_file in str(error.value)
    assert "remove the file" in str(error.value)
    assert Path(leases.ports_file).read_bytes() == content


def test_corrupt_leases_of_ports_do_not_keep_a_claim(leases: Leases) -> None:
    """The lease of a deployment is given back, whatever has happened to the leases of ports."""
    leases.save(DeploymentLease("/srv/a", (ME,)))
    Path(leases.ports_file).write_text("{")
    with pytest.raises(NixprocError, match="cannot be read"):
        leases.remove("/srv/a")
    assert leases.all() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"root": "/a"}', b"\xff", b'{"users": 3, "guardian": null}'])
def test_corrupt_claims_are_named_and_left_alone(leases: Leases, content: bytes) -> None:
    """A lease that cannot be read is told of, hides no other one, and is not removed."""
    leases.save(DeploymentLease("/srv/a", (ME,)))
    corrupt = Path(leases.directory) / "broken.json"
    corrupt.write_bytes(content)
    assert [lease.root for lease in leases.all()] == ["/srv/a"]
    assert leases.corrupt() == [str(corrupt)]
    leases.remove("/srv/a")
    assert corrupt.read_bytes() == content


def refusals(leases: Leases) -> list[str]:
    """Return the errors of everything that reads or writes leases."""
    texts = []
    actions: list[Callable[[], object]] = [
        leases.all,
        leases.corrupt,
        lambda: leases.save(DeploymentLease("/srv/a", (ME,))),
    ]
    actions.append(lambda: ExitStack().enter_context(leases.locked()))
    for action in actions:
        with pytest.raises(NixprocError) as error:
            action()
        texts.append(str(error.value))
    return texts


@pytest.mark.parametrize("which", ["top", "leases"])
@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_directory_that_others_can_write_is_refused(leases: Leases, top: Path, which: str, mode: int) -> None:
    """Leases say what is to be killed and removed: nothing is read or written where others could have put them."""
    directory = top if which == "top" else top / "leases"
    (top / "leases").mkdir(parents=True, mode=0o700)
    (top / "leases" / "forged.json").write_text('{"root": "/"}')
    directory.chmod(mode)
    for text in refusals(leases):
        assert f"{directory} cannot be trusted with leases: others can write it" in text
        assert "0700" in text


@root_only
@pytest.mark.parametrize("which", ["top", "leases"])
def test_directory_of_somebody_else_is_refused(leases: Leases, top: Path, which: str) -> None:
    """A directory that another user has made before us is refused, and that user is named."""
    (top / "leases").mkdir(parents=True, mode=0o700)
    os.chown(top if which == "top" else top / "leases", OTHER_USER, OTHER_USER)
    for text in refusals(leases):
        assert f"it belongs to user {OTHER_USER}" in text


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_directory_is_refused(leases: Leases, top: Path, tmp_path: Path, kind: str) -> None:
    """A link to somewhere else, or a file, in the place of the directory is an error and not followed."""
    (tmp_path / "elsewhere").mkdir()
    top.mkdir(mode=0o700)
    if kind == "link":
        (top / "leases").symlink_to(tmp_path / "elsewhere")
    else:
        (top / "leases").touch()
    for text in refusals(leases):
        assert "cannot be trusted" in text
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """A place where nothing can be written is an error that names it and the reason."""
    (tmp_path / "file").touch()
    leases = Leases(f"{tmp_path}/file/top/leases")
    with pytest.raises(NixprocError, match=f"cannot write leases in {tmp_path}/file/top/leases: Not a directory"):
        leases.save(DeploymentLease(str(tmp_path), (ME,)))


def test_long_wait_for_the_lock_says_so(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits too long for the lock is told which file is locked."""
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    with leases.locked() as ports:
        ports.lease("/srv/a", ME, [30000])
        with pytest.raises(NixprocError, match=r"lock is locked by somebody for more than 0\.05 s"):
            ExitStack().enter_context(Leases(leases.directory).locked())


HOLDER = """
import os, signal, sys
from pytest_nixproc._persistence.leases import Leases, DeploymentLease
from pytest_nixproc._persistence.files import temporary_for
from pytest_nixproc._persistence.files import replace_file
from pytest_nixproc._persistence.process_identity import ProcessIdentity
leases = Leases(sys.argv[1])
leases.save(DeploymentLease("/srv/killed", (ProcessIdentity.current(),)))
with leases.locked() as ports:
    ports.lease("/srv/killed", ProcessIdentity.current(), [30000])
with leases.locked():
    for path in (leases.ports_file, leases.directory + "/killed.json"):
        open(temporary_for(path), "w").write("half a li")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_owner_that_is_killed_in_the_middle_leaves_nothing(leases: Leases, top: Path) -> None:
    """The lock of a killed process is free, its ports too; half written files go with its lease."""
    killed = subprocess.run([sys.executable, "-c", HOLDER, leases.directory], check=False)
    assert killed.returncode == -9
    (lease,) = leases.all()
    assert lease.is_abandoned
    with leases.locked() as ports:
        assert ports.leases == {}
    leases.remove(lease.root)
    assert not top.exists()


def test_lock_that_nobody_holds_is_no_obstacle(leases: Leases, top: Path) -> None:
    """The lock file of a process that was killed goes with the last lease."""
    leases.save(DeploymentLease("/srv/a", (ME,)))
    (Path(leases.directory) / "lock").touch(0o600)
    leases.remove("/srv/a")
    assert not top.exists()


@root_only
@pytest.mark.parametrize("planted", ["theirs", "link"])
def test_planted_lease_is_not_believed(leases: Leases, planted: str) -> None:
    """A lease that another user has written, or a link to a file, counts as unreadable, wherever it lies."""
    leases.save(DeploymentLease("/srv/a", (GONE,)))
    path = f"{leases.directory}/a.json"
    if planted == "link":
        os.rename(path, f"{leases.directory}/b")
        os.symlink("b", path)
    else:
        os.chown(path, OTHER_USER, OTHER_USER)
    assert leases.all() == []
    assert leases.corrupt() == [path]


@root_only
def test_way_to_the_leases_has_to_be_ours(tmp_path: Path) -> None:
    """Leases below another user's directory are refused by its name: that user could put others in their place."""
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", OTHER_USER, OTHER_USER)
    leases = Leases(f"{tmp_path}/theirs/top/leases")
    with pytest.raises(NixprocError, match=f"cannot be trusted with leases: {tmp_path}/theirs belongs to user"):
        leases.save(DeploymentLease("/srv/a", (ME,)))
