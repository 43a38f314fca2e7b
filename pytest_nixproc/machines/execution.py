"""What the kernel executes (execve(2)), and what it does not, in words: before a manager, or a shell, has its own.

A shell that is told to become a script without ``#!`` runs it by itself (POSIX.1 XCU 2.9.1), and calls a script
missing whose interpreter is; managers that need no shell do neither.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from pytest_nixproc.machines.software import ELF, HEAD_BYTES, loader_of

INTERPRETERS_OF_INTERPRETERS: Final = 5
"""As many as the kernel follows."""

MACHINE: Final = slice(18, 20)
"""Where a binary says for which processor it is (elf(5), ``e_machine``)."""

COMPATIBLE: Final[Mapping[bytes, bytes]] = {b"\x3e\0": b"\x03\0", b"\xb7\0": b"\x28\0"}
"""The processor whose binaries another one executes as well: x86-64 those of i386, and AArch64 those of ARM."""

REGISTERED: Final = "/proc/sys/fs/binfmt_misc"
"""Interpreters that somebody has registered with the kernel for files of other kinds."""


def execution_problem(path: str, depth: int = 0) -> str:
    """Return why the kernel would not execute a program, or an empty text; also where that cannot be told."""
    try:
        facts = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"{path} does not exist"
    except OSError:
        return ""
    if stat.S_ISDIR(facts.st_mode):
        return f"{path} is a directory"
    if not facts.st_mode & 0o111:
        return f"{path} is not executable: chmod +x {path}"
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return ""
    if head.startswith(b"#!"):
        return problem_of_script(path, head, depth) if depth < INTERPRETERS_OF_INTERPRETERS else ""
    return problem_of_binary(path, head) if head.startswith(ELF) else problem_of_text(path, head)


def problem_of_script(path: str, head: bytes, depth: int) -> str:
    """Return why a script cannot be executed: it is its interpreter that the kernel executes, if that can be."""
    line = re.sub("[ \t]+", " ", os.fsdecode(head[2:].partition(b"\n")[0])).strip(" ")
    interpreter, _, argument = line.partition(" ")
    if not interpreter.strip("\r"):
        return f"{path} cannot be executed: its #! line names no interpreter"
    # env(1) is mostly told a mere name, which it looks up as it is.
    wanted = argument if re.fullmatch(r"/(\S*/)?env \w[\w.+-]*\r+", line) else interpreter
    if wanted.endswith("\r"):
        return f"{path} cannot be executed: its lines end in CR LF, so that its interpreter is {wanted!r}"
    problem = execution_problem(interpreter, depth + 1) if interpreter.startswith("/") else ""
    return f"{path} cannot be executed: its interpreter {problem}" if problem else ""


def problem_of_binary(path: str, head: bytes) -> str:
    """Return why a binary cannot be executed: it is for another processor, or what loads it is missing."""
    own = own_machine()
    if not own or head[MACHINE] == COMPATIBLE.get(own):
        return ""
    if head[MACHINE] != own:
        return "" if any(registrations()) else f"{path} cannot be executed: it is a binary for another processor"
    loader = loader_of(path)
    is_missing = loader.startswith("/") and not os.path.exists(loader)
    return f"{path} cannot be executed: its loader {loader} does not exist" if is_missing else ""


def problem_of_text(path: str, head: bytes) -> str:
    """Return why a file without any mark cannot be executed; one that is no text may be of a kind unknown to us."""
    is_registered = any(f"extension {os.path.splitext(path)[1]}" in text.splitlines() for text in registrations())
    if b"\0" in head or is_registered:
        return ""
    kind = "has no #! line, and is no binary" if head else "is empty"
    return f"{path} cannot be executed: it {kind}"


@cache
def own_machine() -> bytes:
    """Return the processor that this process runs on, as binaries say it; empty where it cannot be seen."""
    with suppress(OSError), open("/proc/self/exe", "rb") as file:
        return file.read(HEAD_BYTES)[MACHINE]
    return b""


def registrations() -> Iterator[str]:
    """Yield what is registered with the kernel."""
    with suppress(OSError):
        for place in Path(REGISTERED).iterdir():
            if place.name not in ("register", "status"):
                yield place.read_text(errors="replace")
