"""Processes that flee: each goes on as its own child, and has ended before anybody can look at it.

Looking at all processes takes longer than such a process lives. But the kernel numbers processes one after another: so
the next one is looked for behind the last, and stopped (SIGSTOP) as soon as it is seen.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from pytest_nixproc.machines.process_table import (
    HAS_PROC,
    LISTINGS,
    all_processes,
    environment_of,
    parents,
    read_facts,
)

# Not imported from typing: the guardian imports this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

PROBES: Final = 40
"""How often the newest processes are looked at, where processes are being made."""

QUIET_PROBES: Final = 4
"""How many of these see no process that is new, and end it."""

SUCCESSORS: Final = 8
"""How many numbers behind that of a process its successor is looked for; other programs take some, too."""

CLEAN_PASSES: Final = 3


def carries(pid: int, tag: bytes) -> bool:
    """Tell whether a process was started with a variable, ``NAME=VALUE``."""
    return tag in environment_of(pid).split(b"\0")


def carriers(tag: bytes) -> set[int]:
    """Return the processes that carry a tag, those too that were there for a moment only.

    Where none is seen among all, the newest are looked at more closely.
    """
    if not HAS_PROC:
        return {pid for pid in parents() if carries(pid, tag)}
    found: set[int] = set()
    seen: set[int] = set()
    for _ in range(LISTINGS):
        new = set(all_processes()) - seen
        # The newest first: they may be gone soon.
        found |= {pid for pid in sorted(new, reverse=True) if carries(pid, tag)}
        if not new:
            break
        seen |= new
    return found or newest_carriers(tag)


def newest_carriers(tag: bytes) -> set[int]:
    """Return one of the newest processes if it carries a tag; look for a while, as long as processes are being made."""
    last, quiet = 0, 0
    for _ in range(PROBES):
        before, last = last, last_pid()
        for pid in range(last + 1, last - 3, -1):
            if carries(pid, tag):
                return {pid}
        quiet = quiet + 1 if last == before else 0
        if quiet == QUIET_PROBES:
            break
    return set()


def last_pid() -> int:
    """Return the number of the process that was made last (proc(5), ``loadavg``)."""
    fields = read_facts("/proc/loadavg").split()
    return int(fields[-1]) if fields else 0


def freeze(tag: bytes, seconds: float) -> set[int]:
    """Stop the processes that carry a tag, until none is seen any more that is not stopped; return them.

    It ends after some seconds even so.
    """
    frozen: set[int] = set()
    end, clean = time.monotonic() + seconds, 0
    while clean < CLEAN_PASSES and time.monotonic() < end:
        fresh = {pid for seen in carriers(tag) - frozen for pid in pursued(seen, tag)}
        clean = 0 if fresh else clean + 1
        frozen |= fresh
    return frozen


def pursued(pid: int, tag: bytes) -> Iterator[int]:
    """Stop a process, and then each that carries the tag and follows the last one; yield them."""
    following: int | None = pid
    while following is not None:
        pid = following
        with suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
        yield pid
        following = next((later for later in range(pid + 1, pid + 1 + SUCCESSORS) if carries(later, tag)), None)
