"""Facts about processes, seen from outside on Linux (proc(5)): open files, working directory, umask, zombies."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Final

from pytest_nixproc.machines.listeners import Address, listening_sockets
from pytest_nixproc.machines.process_table import children_of, environment_of, offspring, read_facts, stat_fields
from pytest_nixproc.values.machine import ProcessInfo
from pytest_nixproc.values.tags import INSTANCE

NO_FILES: Final = ("/dev/", "/proc/", "/sys/", "/memfd:")
"""Beginnings of targets that are no file on a disk; files in shared memory count as files."""

SHARED_MEMORY: Final = "/dev/shm/"  # noqa: S108 - recognised, not used
MOST_ENTRIES: Final = 1000
"""How many entries of one directory are looked at."""

GONE: Final = " (deleted)"
NAMING: Final = f"{INSTANCE}=".encode()


def inspect(mains: Collection[int], starter: Iterable[int], tag: str) -> list[ProcessInfo]:
    """Return facts about main processes, all their descendants, and tagged processes that have escaped from them.

    A process has escaped if it descends from the starter, but from no main process, and stands above none.
    """
    reader = ProcReader()
    ask = cache(children_of)
    families = {pid: {pid, *offspring([pid], ask)} for pid in mains}
    seen = {pid for family in families.values() for pid in family}
    found = [reader.look(pid, main, "") for main, family in families.items() for pid in sorted(family)]
    others = offspring(starter, ask) - seen - above({reader.parents.get(pid, 0) for pid in mains})
    for pid in sorted(others):
        environment = environment_of(pid).split(b"\0")
        if tag.encode() in environment:
            instances = (entry.removeprefix(NAMING) for entry in environment if entry.startswith(NAMING))
            found.append(reader.look(pid, None, os.fsdecode(next(instances, b""))))
    return found


def above(pids: Iterable[int]) -> set[int]:
    """Return some processes, and all their ancestors."""
    found: set[int] = set()
    for start in pids:
        pid = start
        while pid and pid not in found:
            found.add(pid)
            fields = stat_fields(pid)
            pid = int(fields[1]) if fields else 0
    return found


class ProcReader:
    """A reader of facts about processes; ``parents`` has the parent of each process that it has looked at."""

    def __init__(self) -> None:
        self.parents: dict[int, int] = {}
        rows = (line.split(None, 7) for line in read_facts("/proc/net/unix").splitlines()[1:])
        named = (row for row in rows if len(row) == 8 and row[7].startswith(b"/"))
        self.bound = {int(row[6]): os.fsdecode(row[7]) for row in named}
        """The Unix sockets of this network that have paths, by their inodes."""

        self.heard: dict[int, Address] = {}
        with suppress(OSError):
            self.heard = listening_sockets()
        self.own_files = files_of("self")

    def look(self, pid: int, main: int | None, instance: str) -> ProcessInfo:
        """Return the facts about one process; for a process that is gone or closed to us, they are empty."""
        status = read_facts(f"/proc/{pid}/status")
        self.parents[pid] = int(value_in(status, b"PPid") or 0)
        umask, is_zombie = value_in(status, b"Umask").decode(), value_in(status, b"State").startswith(b"Z")
        directory = ""
        with suppress(OSError):
            directory = os.readlink(f"/proc/{pid}/cwd")
        files, sockets = opened(pid)
        bound = {self.bound[inode] for inode in sockets if inode in self.bound}
        listening = tuple(self.heard[inode].held_by(pid) for inode in sockets if inode in self.heard)
        written = files | bound
        shares_files = not written or files_of(pid) == self.own_files
        seen = (umask, directory, tuple(sorted(written)), is_zombie, shares_files, tuple(sorted(bound)), listening)
        return ProcessInfo(pid, main, instance, *seen)


def value_in(status: bytes, name: bytes) -> bytes:
    """Return a value of a ``/proc/PID/status``, whose lines are ``NAME:`` and the value; empty without it."""
    _, found, rest = status.partition(b"\n" + name + b":\t")
    return rest[: rest.index(b"\n")] if found else b""


def files_of(pid: int | str) -> int:
    """Return the number of the mount namespace of a process; processes with the same one see the same files."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    return 0


def opened(pid: int) -> tuple[set[str], list[int]]:
    """Return the files that a process has open for writing, and the inodes of its sockets."""
    files, sockets = set(), []
    with suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{entry}"
            try:
                target = os.readlink(path)
                if target.startswith("socket:["):
                    sockets.append(int(target[8:-1]))
                elif is_file(target) and os.lstat(path).st_mode & stat.S_IWUSR:
                    # The link's own mode is how the file was opened.
                    files.add(target)
            except OSError:
                continue
    return files, sockets


def is_file(target: str) -> bool:
    """Tell whether a descriptor's target is a file with a name, and not a device, a pipe or a removed file."""
    is_named = target.startswith("/") and not target.endswith(GONE)
    return is_named and (not target.startswith(NO_FILES) or target.startswith(SHARED_MEMORY))


def modified_since(paths: Iterable[str], reference: str) -> list[str]:
    """Return which of the given paths have changed since ``reference`` was modified."""
    found = []
    with suppress(OSError):
        since = os.stat(reference).st_mtime_ns
        for path in paths:
            with suppress(OSError):
                facts = os.stat(path)
                if max(facts.st_mtime_ns, facts.st_ctime_ns) > since and not stat.S_ISCHR(facts.st_mode):
                    found.append(path)
    return found


def created_since(
    directories: Iterable[str], named: Iterable[str], reference: str, depth: int = 1
) -> Iterator[tuple[str, int]]:
    """Yield path and uid of entries created, and of ``named`` files changed, since ``reference`` was modified.

    Directories in these are looked into as well, as deep as ``depth`` says. A directory changes when something is made
    in it, so others are not read.
    """
    with suppress(OSError):
        since = os.stat(reference).st_mtime_ns
        for path in named:
            with suppress(OSError):
                facts = os.stat(path)
                if facts.st_ctime_ns > since and not stat.S_ISDIR(facts.st_mode) and not stat.S_ISCHR(facts.st_mode):
                    yield path, facts.st_uid
        for directory in dict.fromkeys(map(os.path.expanduser, directories)):
            yield from entries_since(directory, since, depth)


def entries_since(directory: str, since: int, depth: int) -> Iterator[tuple[str, int]]:
    """Yield the entries of a directory that have changed since a time, and those of the directories in it."""
    with suppress(OSError):
        if os.stat(directory).st_mtime_ns <= since:
            return
        with os.scandir(directory) as entries:
            for entry in islice(entries, MOST_ENTRIES):
                with suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    if facts.st_mtime_ns > since and stat.S_ISDIR(facts.st_mode) and depth:
                        yield from entries_since(entry.path, since, depth - 1)
                    elif facts.st_ctime_ns > since and not stat.S_ISDIR(facts.st_mode):
                        yield entry.path, facts.st_uid
