"""What the kernel executes, and why it does not execute the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc.machines import execution
from pytest_nixproc.machines.execution import execution_problem

BINARY: Final = Path("/proc/self/exe")
CANNOT: Final = "it cannot be executed: its "

SCRIPTS: Final = {
    b"echo\n": "it cannot be executed: it has no #! line, and is no binary",
    b"": "it cannot be executed: it is empty",
    b"#!\n": f"{CANNOT}#! line names no interpreter",
    b"#! \t\r\n": f"{CANNOT}#! line names no interpreter",
    b"#!/no/such -e\n": f"{CANNOT}interpreter /no/such does not exist",
    b"#! /no/such": f"{CANNOT}interpreter /no/such does not exist",
    b"#!/tmp\n": f"{CANNOT}interpreter /tmp is a directory",
    b"#!/etc/passwd\n": f"{CANNOT}interpreter /etc/passwd is not executable: chmod +x /etc/passwd",
    b"#!/bin/sh\r\n": f"{CANNOT}lines end in CR LF, so that its interpreter is '/bin/sh\\r'",
    b"#!/usr/bin/env python3\r\n": f"{CANNOT}lines end in CR LF, so that its interpreter is 'python3\\r'",
    b"#!/bin/sh\n": "",
    b"#! /bin/sh -e\t\n": "",
    b"#!/bin/sh -e\r\n": "",
    b"#!/usr/bin/env -S sh -e\r\n": "",
    b"#!relative\n": "",
    b"MZ\0\0": "",
}
"""Contents of executable files, each with what is to be said about it."""


def put(path: Path, content: bytes) -> Path:
    """Write an executable file."""
    path.write_bytes(content)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("content", SCRIPTS)
def test_scripts(tmp_path: Path, content: bytes) -> None:
    """A script is as good as its #! line: what is wrong with that, or with the interpreter, is named."""
    path = put(tmp_path / "it", content)
    assert execution_problem(str(path)) == SCRIPTS[content].replace("it cannot", f"{path} cannot", 1)


@pytest.mark.parametrize("content", [content for content, problem in SCRIPTS.items() if problem])
def test_kernel_agrees(tmp_path: Path, content: bytes) -> None:
    """The kernel, or env(1) in its place, does not execute what is said to be wrong."""
    path = put(tmp_path / "it", content)
    try:
        status = subprocess.run([path], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode
    except OSError:
        return
    assert status == 127


def test_what_is_no_program(tmp_path: Path) -> None:
    """What is missing, a directory, or not executable, is called that; what we may not read is not judged."""
    path = tmp_path / "it"
    assert execution_problem(f"{path}") == f"{path} does not exist"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o644)
    assert execution_problem(f"{path}") == f"{path} is not executable: chmod +x {path}"
    assert execution_problem(f"{path}/below") == f"{path}/below does not exist"
    assert execution_problem(f"{tmp_path}") == f"{tmp_path} is a directory"


def test_interpreter_of_an_interpreter(tmp_path: Path) -> None:
    """An interpreter may be a script itself; what is wrong with the last one counts, and a circle is not followed."""
    inner = put(tmp_path / "inner", b"#!/no/such\n")
    outer = put(tmp_path / "outer", f"#!{inner}\n".encode())
    assert execution_problem(f"{outer}").endswith(
        f"interpreter {inner} cannot be executed: its interpreter /no/such does not exist"
    )
    put(inner, f"#!{outer}\n".encode())
    assert execution_problem(f"{outer}") == ""


@pytest.mark.skipif(not BINARY.exists(), reason="the system does not show its binaries")
@pytest.mark.parametrize("registered", [(), ("enabled\ninterpreter /usr/bin/qemu\n",)])
def test_binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: tuple[str, ...]) -> None:
    """A binary for another processor is refused where nothing is registered that might run it; our own is fine."""
    monkeypatch.setattr(execution, "registrations", lambda: iter(registered))
    assert execution_problem(os.path.realpath(sys.executable)) == ""
    content = bytearray(BINARY.read_bytes()[:4096])
    content[18:20] = b"\xf3\xf3"
    path = put(tmp_path / "it", bytes(content))
    said = f"{path} cannot be executed: it is a binary for another processor"
    assert execution_problem(f"{path}") == ("" if registered else said)


def test_missing_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A binary of our processor whose loader is missing, as one of another C library, is told by the loader."""
    monkeypatch.setattr(execution, "loader_of", lambda _: "/lib/ld-musl.so.1")
    monkeypatch.setattr(execution, "own_machine", lambda: b"\x3e\0")
    path = put(tmp_path / "it", b"\x7fELF".ljust(18, b"\0") + b"\x3e\0")
    assert execution_problem(f"{path}").endswith("its loader /lib/ld-musl.so.1 does not exist")


def test_registered_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a #! line is fine where the kernel has an interpreter for its name."""
    monkeypatch.setattr(execution, "registrations", lambda: iter(("enabled\nextension .x\n",)))
    assert execution_problem(str(put(tmp_path / "it.x", b"text"))) == ""
    assert execution_problem(str(put(tmp_path / "it.y", b"text"))) != ""
