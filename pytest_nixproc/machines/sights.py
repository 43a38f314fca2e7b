"""What can be seen of processes from outside, on Linux (proc(5)): open files, working directory, umask, zombies."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Final

from pytest_nixproc.machines.api import Sight
from pytest_nixproc.machines.listeners import Address, listening_sockets
from pytest_nixproc.machines.process_table import children_of, environment_of, offspring, read_facts, stat_fields

NO_FILES: Final = ("/dev/", "/proc/", "/sys/", "/memfd:")
"""Beginnings of what is no file on a disk; shared memory is one."""

SHARED_MEMORY: Final = "/dev/shm/"  # noqa: S108 - recognised, not used
MOST_ENTRIES: Final = 1000
"""How many entries of one directory are looked at."""

GONE: Final = " (deleted)"
INSTANCE: Final = b"NIXPROC_INSTANCE="


def sights(mains: Collection[int], starter: Iterable[int], tag: str) -> list[Sight]:
    """Look at main processes with all of their offspring, and at what carries a tag and has escaped from them.

    Escaped is what the starter has below it that descends from no main process, and stands above none.
    """
    looker = Looker()
    ask = cache(children_of)
    families = {pid: {pid, *offspring([pid], ask)} for pid in mains}
    seen = {pid for family in families.values() for pid in family}
    found = [looker.look(pid, main, "") for main, family in families.items() for pid in sorted(family)]
    others = offspring(starter, ask) - seen - above({looker.parents.get(pid, 0) for pid in mains})
    escaped = ((pid, environment_of(pid).split(b"\0")) for pid in sorted(others))
    return found + [
        looker.look(pid, None, instance_in(environment)) for pid, environment in escaped if tag.encode() in environment
    ]


def above(pids: Iterable[int]) -> set[int]:
    """Return some processes, and those above them."""
    found: set[int] = set()
    for start in pids:
        pid = start
        while pid and pid not in found:
            found.add(pid)
            fields = stat_fields(pid)
            pid = int(fields[1]) if fields else 0
    return found


def instance_in(environment: Iterable[bytes]) -> str:
    """Return the instance that an environment names; empty for none."""
    named = (entry.removeprefix(INSTANCE) for entry in environment if entry.startswith(INSTANCE))
    return os.fsdecode(next(named, b""))


class Looker:
    """Looks at processes one by one; ``parents`` are those of the ones that it has looked at."""

    def __init__(self) -> None:
        self.parents: dict[int, int] = {}
        self.bound = bound_sockets()
        self.heard: dict[int, Address] = {}
        with suppress(OSError):
            self.heard = listening_sockets()
        self.own_files = files_of("self")

    def look(self, pid: int, main: int | None, instance: str) -> Sight:
        """Look at one process; what is gone or closed to us is seen without anything."""
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
        return Sight(pid, main, instance, *seen)


def value_in(status: bytes, name: bytes) -> bytes:
    """Return a value of a ``/proc/PID/status``, whose lines are ``NAME:`` and the value; empty without it."""
    _, found, rest = status.partition(b"\n" + name + b":\t")
    return rest[: rest.index(b"\n")] if found else b""


def files_of(pid: int | str) -> int:
    """Return what tells the files that a process sees from those that others see: its mount namespace."""
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
    """Tell whether a descriptor's target is a file with a name, as opposed to a device, a pipe or what was removed."""
    is_named = target.startswith("/") and not target.endswith(GONE)
    return is_named and (not target.startswith(NO_FILES) or target.startswith(SHARED_MEMORY))


def bound_sockets() -> dict[int, str]:
    """Return the Unix sockets of this network that have paths, by their inodes."""
    rows = (line.split(None, 7) for line in read_facts("/proc/net/unix").splitlines()[1:])
    return {int(row[6]): os.fsdecode(row[7]) for row in rows if len(row) == 8 and row[7].startswith(b"/")}


def newer(paths: Iterable[str], reference: str) -> list[str]:
    """Return those of some paths that have changed since another one has."""
    found = []
    with suppress(OSError):
        since = os.stat(reference).st_mtime_ns
        for path in paths:
            with suppress(OSError):
                facts = os.stat(path)
                if max(facts.st_mtime_ns, facts.st_ctime_ns) > since and not stat.S_ISCHR(facts.st_mode):
                    found.append(path)
    return found


def appeared(
    directories: Iterable[str], named: Iterable[str], reference: str, depth: int = 1
) -> Iterator[tuple[str, int]]:
    """Yield what directories got since a file has changed, and those in them, and named files that have changed since.

    Each goes with the number of its user. A directory changes when something is made in it, so others are not read.
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
