"""Directories and files that a process has in its state: how they are read, and whose they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc import Instance, ProcessesModel, create_managed_process
from pytest_nixproc.errors import Fault, Unsupported
from pytest_nixproc.managers.launch import launch_of
from pytest_nixproc.model.state_files import DIRECTORIES, FILES
from pytest_nixproc.values.state_files import StateDirectory, StateFile
from pytest_nixproc.values.target import Target

OUTER, INNER = StateDirectory(path="/s/a", mode=0o750, user="web"), StateDirectory(path="/s/a/b")


@pytest.mark.parametrize(
    "value",
    [
        {"/s/a/b": {}, "/s/a": {"mode": "0750", "user": "web"}},
        {"/s/a/b": None, "/s/./a/": {"mode": "750", "user": "web", "group": None}},
        ["/s/a/b", {"path": "/s/a", "mode": "0750", "user": "web"}],
    ],
)
def test_directories_are_read(value: object) -> None:
    """Directories are a mapping of paths, or a list; the outer ones come first."""
    faults: list[Fault] = []
    assert (DIRECTORIES.read(value, "directories", faults), faults) == ((OUTER, INNER), [])


@pytest.mark.parametrize(
    "value",
    [
        {"/s/f": "text\n"},
        {"/s/f": {"text": "text\n", "mode": "0600", "secret": False}},
        [{"path": "/s/f", "text": "text\n"}],
    ],
)
def test_files_are_read(value: object) -> None:
    """A file is its text alone, or has properties; nobody but its owner reads it unless a mode says so."""
    faults: list[Fault] = []
    assert (FILES.read(value, "files", faults), faults) == ((StateFile(path="/s/f", text="text\n"),), [])


@pytest.mark.parametrize(
    ("kind", "value", "path", "words"),
    [
        (DIRECTORIES, "/s/a", "x", "is '/s/a', which is neither a mapping of paths nor a list"),
        (DIRECTORIES, {"a": {}}, "x.a", "is 'a', which is not an absolute path"),
        (DIRECTORIES, [5], "x[0]", "is 5, which is not a string"),
        (DIRECTORIES, [{"mode": "0755"}], "x[0]", "has no path"),
        (DIRECTORIES, ["/s/a", "/s/a/"], "x[1]", "is there twice, as /s/a"),
        (DIRECTORIES, {"/s/a": {"mode": 750}}, "x./s/a.mode", "is 750, which is no mode (write octal digits in quotes"),
        (DIRECTORIES, {"/s/a": {"mode": "rwx"}}, "x./s/a.mode", "is 'rwx', which is no mode"),
        (DIRECTORIES, {"/s/a": {"usr": "web"}}, "x./s/a.usr", "is no property of it (did you mean 'user'?)"),
        (DIRECTORIES, {"/s/a": "0755"}, "x./s/a", "is '0755', which is no mapping of mode, user, group"),
        (FILES, {"/s/f": {"mode": "0644"}}, "x./s/f", "has no text (an empty file has the text '')"),
        (FILES, {"/s/f": 5}, "x./s/f", "is 5, which is no mapping of text, mode, user, group, secret"),
        (FILES, {"/s/f": {"text": "", "secret": "no"}}, "x./s/f.secret", "is 'no', which is not a truth value"),
        (FILES, {"/s/f": "a\0b"}, "x./s/f.text", "holds a NUL character"),
    ],
)
def test_wrong_entry_is_one_fault(kind: Any, value: object, path: str, words: str) -> None:
    """Each thing that is wrong is a fault with its place, and what to write."""
    faults: list[Fault] = []
    kind.read(value, "x", faults)
    assert [fault.path for fault in faults] == [path]
    assert words in str(faults[0])


def launched(target: Target, **parameters: Any) -> tuple[object, ...]:
    """Return the directories and files that a process is launched with."""
    process = create_managed_process(name="it", process="/bin/it", **parameters)
    launch = launch_of("any", "foreground", "it", ProcessesModel({"it": Instance(process)}), target)
    return (*launch.directories, *launch.files)


def test_owner_is_who_the_process_runs_as(target: Target) -> None:
    """What names no owner is the process's user's; where users are not changed, all is of who deploys."""
    own, others = f"{target.state.lib_dir}/own", f"{target.state.lib_dir}/others"
    parameters = {"user": "web", "directories": [own], "files": {others: {"text": "", "user": "log"}}}
    changing = replace(target, force_disable_user_change=False)
    assert launched(changing, **parameters) == (
        StateDirectory(path=own, user="web", group="web"),
        StateFile(path=others, text="", user="log"),
    )
    assert launched(target, **parameters) == (StateDirectory(path=own), StateFile(path=others, text=""))


@pytest.mark.parametrize("path", ["/etc/it", "/srv/state", "/srv/state/log", "/srv/state/../etc", "/srv/statesmen"])
def test_what_is_not_its_own_is_refused(target: Target, path: str) -> None:
    """Nothing outside the state is made, which would stay, nor does one instance decide about what all share."""
    with pytest.raises(Unsupported, match="lies outside the state, or is what all instances share"):
        launched(target, directories=[path])


def test_secret_text_is_a_secret() -> None:
    """The text of a secret file is masked as the values of secret variables are."""
    files: dict[str, str | dict[str, object]] = {
        "/s/f": {"text": "hunter2\nsecond", "secret": True},
        "/s/g": "public",
    }
    process = create_managed_process(name="it", process="/bin/it", files=files)
    instance = Instance(process, secrets=[])
    assert instance.secret_values == {"hunter2\nsecond"}
    assert "hunter2" not in repr(instance)


def test_paths_in_texts_are_named() -> None:
    """Software that a file's text names is shown to machines and containers, as what an argument names is."""
    process = create_managed_process(name="it", process="/bin/it", files={"/s/f": "module /opt/mod/x.so;"})
    assert "/opt/mod/x.so" in process.named_paths()
