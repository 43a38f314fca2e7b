"""Files of this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pytest_nixproc.machines import archive, process_table
from pytest_nixproc.machines.execution import execution_problem
from pytest_nixproc.machines.parts import Files
from pytest_nixproc.machines.process_info import created_since, modified_since
from pytest_nixproc.machines.removal import remove_tree
from pytest_nixproc.machines.software import Software
from pytest_nixproc.values.machine import Facts
from pytest_nixproc.values.state_files import StateDirectory, StateFile

WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
NOT_THERE: Final = (FileNotFoundError, NotADirectoryError, ProcessLookupError)
"""Errors for a path that leads nowhere; the last, for a process that ends while its facts are read."""


class HostFiles(Files):
    """The files of this machine, as the calling user."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        super().__init__(facts)
        self._software = Software()

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file, and make its missing parent directories; raises ``OSError`` for a link in its place."""
        try:
            descriptor = os.open(path, WRITE, mode)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            descriptor = os.open(path, WRITE, mode)
        with os.fdopen(descriptor, "wb", 0) as file:
            found = os.fstat(descriptor).st_mode
            if mode & 0o700 & ~found:
                # A umask may keep others out, but what has to be executed would not start.
                os.fchmod(descriptor, found | mode & 0o700)
            left = memoryview(os.fsencode(content))
            while left:
                left = left[file.write(left) :]

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link and its missing parent directories; a file or link at that path is replaced."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.symlink(target, path)

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Make a directory of just this mode and its missing parent directories; an existing one is left alone."""
        if not os.path.isdir(path):
            os.makedirs(path, mode, exist_ok=True)
            os.chmod(path, mode)

    def provide(
        self, place: str, directories: Sequence[StateDirectory], files: Sequence[StateFile], obsolete: Sequence[str]
    ) -> None:
        """Make directories and files, and remove obsolete files."""
        if directories or files or obsolete:
            from pytest_nixproc.machines.provision import provide

            provide(place, directories, files, obsolete)

    def read(self, path: str, start: int = 0) -> bytes | None:
        """Return a file's content from byte ``start`` on; None without such a file."""
        try:
            return process_table.read_file(path, start)
        except NOT_THERE:
            return None

    def real_paths(self, paths: Iterable[str]) -> dict[str, str]:
        """Return paths without symbolic links; what does not exist is left as it is."""
        return {path: os.path.realpath(path) for path in paths}

    def execution_problem(self, path: str) -> str:
        """Return why a program cannot be executed."""
        return execution_problem(path)

    def size(self, path: str) -> int:
        """Return a file's size in bytes; 0 without such a file."""
        try:
            return os.stat(path).st_size
        except NOT_THERE:
            return 0

    def exists(self, path: str) -> bool:
        """Tell whether there is a file, directory or socket of that path."""
        return os.path.lexists(path)

    def remove(self, path: str) -> None:
        """Remove a file or directory, but nothing that is mounted in it; one that does not exist is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError:
            remove_tree(path)

    def pack(self, path: str) -> bytes:
        """Pack a file or directory."""
        return archive.pack(path)

    def unpack(self, packed: bytes, path: str) -> None:
        """Unpack an archive."""
        archive.unpack(packed, path)

    def modified_since(self, paths: Sequence[str], reference: str) -> list[str]:
        """Return which paths have changed, in content (mtime) or inode (ctime), since ``reference`` was modified."""
        return modified_since(paths, reference)

    def created_since(self, directories: Sequence[str], named: Sequence[str], reference: str) -> list[tuple[str, int]]:
        """Return path and uid of entries created, and of ``named`` files changed, since ``reference`` was modified."""
        return list(created_since(directories, named, reference))

    def software(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the directories and files of software with its link targets, interpreters and shared libraries."""
        return self._software.needed_by(paths)
