"""What programs say in files of their own, for errors about instances whose log is empty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.recognition import CONFIGURATION
from pytest_nixproc.values.target import Target

MOST_FILES: Final = 3
TAIL_BYTES: Final = 1000
LOOKED_AT: Final = 4096
"""How many bytes tell whether a file is text."""


def said_in_files(process: ManagedProcess, machine: Machine, target: Target) -> Iterator[str]:
    """Yield the ends of text files in the state that a program was told of, and has written, a few at most."""
    found = ((path, text) for path in own_paths(process, machine, target) if (text := text_in(path, machine)))
    for path, text in islice(found, MOST_FILES):
        yield f"end of {path}:\n{text[-TAIL_BYTES:].strip()}"


def own_paths(process: ManagedProcess, machine: Machine, target: Target) -> list[str]:
    """Return the files that a process names in the state, or has made below what it names, those called logs first.

    What all instances share is not its own, and a configuration does not say how it fares.
    """
    shared, written = set(target.state.all()), {file.path for file in process.files}
    named = [path for path in process.named_paths(*process.commands) if target.state.contains(path)]
    own = [path for path in named if path not in shared]
    with suppress(NixprocError, OSError):
        changed = {path for path, _ in machine.files.created_since(own, own, target.directory)} - written
        paths = sorted(path for path in changed if not path.endswith((*CONFIGURATION, ".pid")))
        return sorted(paths, key=lambda path: "log" not in path)
    return []


def text_in(path: str, machine: Machine) -> str:
    """Return what a text file holds; nothing of a binary one, of a directory, and of what cannot be read."""
    try:
        size = machine.files.size(path)
        content = machine.files.read(path, max(0, size - LOOKED_AT)) or b""
    except (NixprocError, OSError):
        return ""
    return "" if b"\0" in content else content.decode(errors="replace").strip()
