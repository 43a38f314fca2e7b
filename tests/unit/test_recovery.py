"""Taking down what only its journal is left of: whose word counts, before anything is removed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc import _recovery
from pytest_nixproc._cli import main
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import Journal, begin, begin_machine, start_facts
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._recovery import named_directory, take_down, undo
from pytest_nixproc._registry import Registry
from pytest_nixproc.errors import NixprocError, TeardownError, UnknownName, Unreachable
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Capabilities, Manager
from pytest_nixproc.testing.fake_machine import FakeMachine, ignores
from pytest_nixproc.values.target import Target
from tests.unit.conftest import FakeGenerator

if TYPE_CHECKING:
    from tests.unit.conftest import FakeDriver, MakeModel


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    """Return leases of our own."""
    return Leases(f"{tmp_path}/run/leases")


def deploy(root: Path, *, machine: str = "host", directory: str = "") -> Path:
    """Leave a deployment that has only begun; its journal may name another directory of generated files."""
    root.mkdir(parents=True)
    own = DeploymentDirectory(str(root))
    journal = Journal(own.journal)
    begin(journal, "sysvinit", machine, Target(own.state, directory or own.profile, own.identity))
    journal.close()
    return root


def files(root: Path) -> list[str]:
    """Return all paths below a directory."""
    return sorted(str(path) for path in root.rglob("*"))


def beginning(**facts: object) -> bytes:
    """Return a journal of one event."""
    return json.dumps(facts).encode() + b"\n"


def test_what_is_out_of_reach_is_kept(tmp_path: Path, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is removed of a deployment whose manager does not answer: a later try finds all that it needs."""
    root = deploy(tmp_path / "state" / "0000000a")

    def no_answer(*_: object) -> list[str]:
        raise Unreachable("the engine does not answer")

    monkeypatch.setattr(_recovery, "undo", no_answer)
    before = files(root)
    with pytest.raises(TeardownError, match=f"the engine does not answer\n *{root} is kept until it is back"):
        take_down(str(root), Registry(), leases)
    assert files(root) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(range(256)),
        b"[]\n",
        beginning(event="begin"),
        beginning(event="machine", machine="nspawn"),
        beginning(event="machine", machine="nspawn", directory="/elsewhere"),
        beginning(event="open") + beginning(event="machine", machine="host", directory="{root}"),
    ],
)
def test_stop_spares_what_only_has_a_file_of_that_name(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """``stop`` refuses a directory whose ``journal`` is none of a deployment there, and removes nothing."""
    root = tmp_path / "precious"
    root.mkdir()
    (root / "journal").write_bytes(content.replace(b"{root}", os.fsencode(root)))
    (root / "thesis").write_text("")
    before = files(root)
    assert main(["stop", str(root)]) == 1
    assert "its journal does not begin with the beginning of one in this directory" in capsys.readouterr().err
    assert files(root) == before


def test_stop_spares_what_another_journal_is_about(tmp_path: Path) -> None:
    """A journal that names other paths than those of its directory is no reason to remove either."""
    root = deploy(tmp_path / "it", directory="/srv/profile")
    with pytest.raises(NixprocError, match="its journal does not begin"):
        named_directory(str(root))
    copied = deploy(tmp_path / "elsewhere").rename(tmp_path / "moved")
    with pytest.raises(NixprocError, match="its journal does not begin"):
        named_directory(str(copied))


def test_stop_is_for_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to another user is not taken down."""
    root = deploy(tmp_path / "it")
    assert named_directory(str(root)).root == str(root)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(NixprocError, match=f"{root} belongs to user {os.getuid()}"):
        named_directory(str(root))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_nothing_is_believed_where_others_can_put_things(tmp_path: Path, leases: Leases) -> None:
    """What lies below another user's directory may have been put there by that user: it is named, and stays as it is.

    Its journal has nothing run, whoever seems to have written it.
    """
    (tmp_path / "theirs").mkdir()
    root = deploy(tmp_path / "theirs" / "it")
    os.chown(tmp_path / "theirs", 4242, 4242)
    before = files(root)
    with pytest.raises(NixprocError, match=f"nothing in {root} is believed: {tmp_path}/theirs belongs to user 4242"):
        named_directory(str(root))
    with pytest.raises(TeardownError, match=f"nothing in {root} is believed"):
        take_down(str(root), NoManagers(), leases)
    assert files(root) == before


class NoManagers(Registry):
    """Finds no manager, because none may be looked for."""

    def manager(self, name: str) -> Manager:
        """Fail the test."""
        raise AssertionError(f"a journal that must not be believed has {name} looked for")


def test_stop_by_another_spelling(tmp_path: Path, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, or one through a link, names a deployment too; a torn end of its journal does not matter."""
    root = deploy(tmp_path / "place" / "it")
    with (root / "journal").open("ab") as file:
        file.write(b'{"event": "sta')
    (tmp_path / "link").symlink_to("place")
    monkeypatch.chdir(root)
    for spelling in (".", f"{tmp_path}/link/it/"):
        assert named_directory(spelling).root == str(root)
    take_down(str(root), Registry(), leases)
    assert os.listdir(tmp_path / "place") == []


@pytest.mark.parametrize("says", ["nspawn", "host", "begin", "elsewhere"])
def test_only_a_machines_own_place_goes_with_it(tmp_path: Path, leases: Leases, says: str) -> None:
    """What is around a deployment is removed with it if both journals name that throwaway machine, and else never."""
    root = deploy(tmp_path / "around" / "it", machine="host" if says == "host" else "nspawn")
    path = f"{tmp_path}/around/journal"
    if says == "begin":
        Path(path).write_bytes(beginning(event="begin", machine="nspawn"))
    elif says == "elsewhere":
        Path(path).write_bytes(beginning(event="machine", machine="nspawn", directory="/elsewhere"))
    else:
        begin_machine(path, "nspawn")
    if says == "elsewhere":
        with pytest.raises(NixprocError, match="around is no deployment"):
            take_down(str(root), Registry(), leases)
        assert root.exists()
    else:
        take_down(str(root), Registry(), leases)
        assert not root.exists()
    assert Path(path).exists() == (says != "nspawn")


class OneDriver:
    """A finder of one manager, whose driver is always the same."""

    def __init__(self, driver: FakeDriver) -> None:
        self.found = Manager("fake", FakeGenerator, lambda *_: driver, Capabilities(prefers="foreground"))

    def manager(self, _: str) -> Manager:
        """Return the manager."""
        return self.found

    def machine(self, name: str) -> type[Machine]:
        """Know none."""
        raise UnknownName("machine", name, ())


def test_each_instance_has_its_own_time(
    tmp_path: Path, driver: FakeDriver, machine: FakeMachine, make_model: MakeModel, units: Any, target: Target
) -> None:
    """Recovery waits for the end of each instance as long as that may take to stop, and no longer."""
    for program in ("/fake/slow", "/fake/stubborn"):
        machine.processes.program(program, ignores(signal.SIGTERM))
    by_name = units(make_model(slow={}, stubborn={}))
    driver.activate(list(by_name.values()), machine.deadline(1))
    directory = DeploymentDirectory(str(tmp_path))
    journal = Journal(directory.journal)
    begin(journal, "fake", "host", target)
    journal.write("start", **start_facts({by_name["slow"]: 40.0, by_name["stubborn"]: 2.0}))
    journal.write("running", pids={name: (pid, machine.processes.identity(pid)) for name, pid in driver.pids.items()})
    journal.close()
    slow = driver.pids["unit-slow"]
    machine.clock.after(30, lambda: machine.processes.end(slow))
    (problem,) = undo(OneDriver(driver), machine, directory)
    assert problem.startswith("unit-stubborn did not stop within 2 s: ")
    assert problem.endswith("was ended by SIGKILL after 3.0 s")
    assert machine.processes.by_pid[slow].status == 0
