"""What programs say in files of their own."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixproc import create_managed_process
from pytest_nixproc._deployment.own_files import MOST_FILES, TAIL_BYTES, said_in_files
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.values.target import Target


def said(target: Target, contents: dict[str, bytes], *args: str, **parameters: Any) -> list[str]:
    """Return what a program says in its files, of which some are there when it is looked."""
    machine = FakeMachine()
    machine.files.contents.update(contents)
    process = create_managed_process(name="web", process="/bin/web", args=args, **parameters)
    return list(said_in_files(process, machine, target))


def test_end_of_a_file_that_it_is_told_of(target: Target) -> None:
    """A program that logs into a file of its own is quoted from there, the end of a long one."""
    path = f"{target.state.log_dir}/web/error.log"
    text = b"x" * 9000 + b"\ncannot bind\n"
    (told,) = said(target, {path: text}, "-e", path)
    assert told.startswith(f"end of {path}:\nxxx")
    assert told.endswith("x\ncannot bind")
    assert len(told) <= len(f"end of {path}:\n") + TAIL_BYTES


def test_logs_come_first_and_few(target: Target) -> None:
    """Of many files, those that are called logs are quoted, and a few at most."""
    paths = [f"{target.state.lib_dir}/web/{name}" for name in ("a", "b", "c", "z.log")]
    told = said(target, dict.fromkeys(paths, b"text"), *paths)
    assert [text.split(":")[0] for text in told] == [f"end of {path}" for path in (paths[3], *paths[:2])]
    assert len(told) == MOST_FILES


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("run/web.pid", b"17\n"),
        ("lib/web.conf", b"listen 80"),
        ("lib/written", b"by the model"),
        ("lib/data", b"\0\1\2"),
        ("lib/empty", b" \n"),
        ("../elsewhere.log", b"text"),
    ],
)
def test_what_says_nothing(target: Target, place: str, content: bytes) -> None:
    """PID files, configurations, data, and what the model itself has written do not say how a program fares."""
    path = f"{target.state.state_dir}/{place}"
    files = {f"{target.state.lib_dir}/written": "by the model"}
    assert said(target, {path: content}, path, files=files) == []


def test_what_all_share_is_nobodys_own(target: Target) -> None:
    """A program that is told of the directory of all logs is not quoted with those of others."""
    assert said(target, {target.state.log_dir: b"text"}, target.state.log_dir) == []
