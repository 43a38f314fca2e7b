"""Whose a file may be that was written and closed where all programs write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._inspection.file_changes import FileChanges, paths_in
from pytest_nixproc.checks.api import FileChange
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeFiles, FakeMachine
from pytest_nixproc.values.machine import Account, ProcessInfo

OWN = ("/tmp/site",)
WEB = Account("web", 900, "web", 900)
SEEN = [("web", ProcessInfo(4711, 4711)), ("db", ProcessInfo(4712, 4712))]


class Files(FakeFiles):
    """Files of which some have changed; each has the number of its user."""

    changed: Mapping[str, int]

    def created_since(self, directories: Any, named: Any, reference: str) -> list[tuple[str, int]]:
        """Return what has changed."""
        changed = [(f"/tmp/{name}", uid) for name, uid in self.changed.items()]
        return changed + super().created_since(directories, named, reference)


class Machine(FakeMachine):
    """A machine with such files."""

    def __init__(self, **changed: int) -> None:
        super().__init__()
        self.files = Files(lambda: self.facts)
        self.files.changed = changed


def found(machine: Machine, *, accounts: dict[str, Account] | None = None, **parameters: Any) -> list[FileChange]:
    """Return what is found of a model of two instances, of which one has parameters."""
    web = create_managed_process(name="web", **{"process": "/bin/web", **parameters})
    model = ProcessesModel({"web": Instance(web), "db": Instance(create_managed_process(name="db", process="/bin/db"))})
    return FileChanges(model, machine).found(SEEN, accounts or {}, OWN, "/tmp/site/profile")


@pytest.mark.parametrize(
    "parameters",
    [
        {"args": ["-c", "echo >> /tmp/log"]},
        {"environment": {"LOG": "/tmp/log"}},
        {"initialize": "touch /tmp/log;"},
    ],
    ids=["argument", "variable", "script"],
)
def test_path_that_an_instance_is_told(parameters: dict[str, Any]) -> None:
    """A path in anything that it is told is a clue; it was looked for by itself."""
    machine = Machine()
    machine.files.write("/tmp/log", "")
    assert found(machine, **parameters) == [FileChange("web", "/tmp/log", "named in what it is told")]


def test_path_that_a_program_names() -> None:
    """So is one in the program, or in a script that is an argument; those of the state are none."""
    machine = Machine()
    machine.files.write("/bin/web", "#!/bin/sh\necho > '/tmp/log' # and /tmp/site/var/log\n")
    for path in ("/tmp/log", "/tmp/site/var/log"):
        machine.files.write(path, "")
    assert found(machine) == [FileChange("web", "/tmp/log", "named in /bin/web")]
    assert found(machine, process="/bin/sh", args=["/bin/web"]) == [FileChange("web", "/tmp/log", "named in /bin/web")]


def test_named_file_of_another_user() -> None:
    """What is named may only be read: a file that neither the caller nor the instance's user has is left out."""
    machine = Machine(log=900, shared=5)
    told = ["-c", "cat /tmp/log /tmp/shared"]
    assert found(machine, args=told) == []
    assert [change.path for change in found(machine, accounts={"web": WEB}, args=told)] == ["/tmp/log"]


def test_numbers_of_processes() -> None:
    """A name with the number of a process is a clue, and one that has it within a longer number is none."""
    machine = Machine(**{"a-4711.log": 0, "b.4712": 0, "c-47113": 0, "d": 0})
    clue = "its name has the number of process "
    assert found(machine) == [
        FileChange("web", "/tmp/a-4711.log", f"{clue}4711"),
        FileChange("db", "/tmp/b.4712", f"{clue}4712"),
    ]


def test_users() -> None:
    """What belongs to the user of one instance alone is its own; the caller's, and what users share, is anybody's."""
    machine = Machine(x=900, y=machine_user(), z=901)
    assert found(machine, accounts={"web": WEB}) == [FileChange("web", "/tmp/x", "it belongs to its user")]
    assert found(machine, accounts={"web": WEB, "db": WEB}) == []


def machine_user() -> int:
    """Return who calls."""
    return FakeMachine().facts.account.uid


def test_paths_in_texts() -> None:
    """Paths end where shells end words; addresses and other places are no paths."""
    text = b"a=/tmp/a;b='/var/log/b.log',/var/tmp/c) http://h/tmp/d ./tmp/e /tmpfile /tmp/ /srv/f"
    assert paths_in(text) == {"/tmp/a", "/var/log/b.log", "/var/tmp/c"}


def test_program_that_cannot_be_read(tmp_path: Path) -> None:
    """A program that is a directory, or is missing, names nothing."""
    assert found(Machine(), process=str(tmp_path), args=["/missing"]) == []


def test_program_that_is_closed_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot be looked at names nothing, and is no error."""
    machine = Machine()
    machine.files.write("/tmp/log", "")

    def refuse(_: FakeFiles, path: str) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(FakeFiles, "size", refuse)
    assert found(machine) == []
