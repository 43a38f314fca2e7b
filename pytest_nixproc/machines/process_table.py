"""The table of processes and their parents; standard library only, because the guardian reads it too."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from typing import Any, Final

HAS_PROC: Final = os.path.exists("/proc/self/stat")
HAS_CHILDREN: Final = os.path.exists("/proc/thread-self/children")
"""Whether the kernel lists the children of a process (proc(5), CONFIG_PROC_CHILDREN)."""

LISTINGS: Final = 10


def read_file(path: str, start: int = 0) -> bytes:
    """Return a file's content from byte ``start`` on; takes half the time that ``open`` and its buffers take."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if start:
            os.lseek(descriptor, start, os.SEEK_SET)
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
    finally:
        os.close(descriptor)


def read_facts(path: str) -> bytes:
    """Return the content of a file about a process; empty when there is no such process, or it is not shown to us."""
    try:
        return read_file(path)
    except OSError:
        return b""


def all_processes() -> list[int]:
    """Return the pids of all processes, where there is ``/proc``."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def parents() -> dict[int, int]:
    """Return the parent of every process of this machine."""
    if not HAS_PROC:
        return parents_by_ps()
    return {pid: int(fields[1]) for pid in all_processes() if (fields := stat_fields(pid))}


def census() -> tuple[dict[int, int], set[int], bool]:
    """Return the parent of every process, those that had ended already (zombies), and whether none is missing.

    One listing is not enough: it lacks the child that a process makes just before it ends. So processes are listed
    until all have been looked at, and looked at again when their parent is gone: they have got another one.
    """
    if not HAS_PROC:
        return parents_by_ps(), set(), True
    seen: dict[int, list[str]] = {}
    hidden: set[tuple[int, int]] = set()
    """Whose parents have not changed when looked at again: these are not shown to us (proc(5), hidepid)."""

    for _ in range(LISTINGS):
        new = set(all_processes()) - seen.keys()
        seen |= {pid: fields for pid in new if (fields := stat_fields(pid))}
        parents = {pid: int(fields[1]) for pid, fields in seen.items()}
        orphans = {(pid, parent) for pid, parent in parents.items() if parent and parent not in seen}
        if not new and orphans <= hidden:
            break
        for pid, _ in orphans - hidden:
            del seen[pid]
        hidden |= orphans
    zombies = {pid for pid, fields in seen.items() if fields[0] in "ZX"}
    return parents, zombies, not new


def parents_by_ps() -> dict[int, int]:
    """Return the parent of every process from ``ps`` (POSIX.1 options), where there is no ``/proc``."""
    with os.popen("ps -A -o pid= -o ppid=") as lines:  # noqa: S605, S607 - a fixed command; subprocess is slow to import
        return {int(pid): int(ppid) for pid, ppid in (line.split() for line in lines)}


def stat_fields(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` from the state on (proc(5)); empty when there is no such process."""
    # The second field is the command in parentheses, and may hold spaces and parentheses itself.
    return read_facts(f"/proc/{pid}/stat").rpartition(b")")[2].decode().split()


def has_memory(pid: int) -> bool:
    """Tell whether a process still has its memory, and with it its environment; an exiting process loses both first."""
    if not HAS_PROC:
        return is_alive(pid)
    # The 23rd field of the file is the size of the virtual memory (proc(5)).
    fields = stat_fields(pid)
    return bool(fields) and fields[20] != "0"


def start_time(pid: int) -> str:
    """Return when a process started, in ticks since boot: with the pid, its identity. Empty where unknown."""
    fields = stat_fields(pid)
    return fields[19] if fields else ""


def identity_of(pid: int) -> str:
    """Return a text that distinguishes a process from later ones that reuse its pid; empty without a process."""
    if HAS_PROC:
        return start_time(pid)
    created = asked_of_psutil(pid, "create_time")
    return "" if created is None else str(created)


def is_alive(pid: int) -> bool:
    """Tell whether a process exists and has not ended; where there is ``/proc``, a zombie counts as ended."""
    if fields := stat_fields(pid):
        return fields[0] not in "ZX"
    if HAS_PROC:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_stopped(pid: int) -> bool:
    """Tell whether a process has been stopped, by SIGSTOP or one of its kind, and not been continued."""
    return stat_fields(pid)[:1] == ["T"]


def descendants(roots: Iterable[int], table: Mapping[int, int]) -> list[int]:
    """Return all descendants of ``roots``, each process after its parent."""
    children: dict[int, list[int]] = {}
    for pid, parent in table.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def offspring(roots: Iterable[int], ask: Callable[[int], AbstractSet[int]] | None = None) -> set[int]:
    """Return all descendants of ``roots``; no other processes are read where the kernel can list a process's children.

    ``ask`` returns the children of a process: for who remembers what has been asked already.
    """
    if not HAS_CHILDREN:
        return set(descendants(roots, parents()))
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        below = (ask or children_of)(waiting.pop()) - found
        found |= below
        waiting += below
    return found


def children_of(pid: int) -> set[int]:
    """Return the children of a process, which the kernel lists by the threads that have made them."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return set()
    return {int(child) for thread in threads for child in read_facts(f"/proc/{pid}/task/{thread}/children").split()}


def ancestors(pid: int, table: Mapping[int, int]) -> Iterator[int]:
    """Yield the processes above ``pid``, its parent first."""
    while pid := table.get(pid, 0):
        yield pid


def own_pid(pid: int) -> int:
    """Return the pid of a process in its innermost PID namespace, as the process sees it itself."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return innermost_pid(file.read()) or pid
    except OSError:
        return pid


def innermost_pid(status: bytes) -> int | None:
    """Return the last number in the ``NSpid`` of a ``/proc/PID/status`` (proc(5)); None where the kernel has none."""
    line = next((line for line in status.splitlines() if line.startswith(b"NSpid:")), b"")
    return int(line.split()[-1]) if line else None


def environment_of(pid: int) -> bytes:
    """Return the initial environment of a process, NUL-separated; empty when it cannot be read.

    Without ``/proc`` it takes psutil, which a bare interpreter does not have.
    """
    if HAS_PROC:
        return read_facts(f"/proc/{pid}/environ")
    variables = asked_of_psutil(pid, "environ") or {}
    return b"\0".join(os.fsencode(f"{name}={value}") for name, value in variables.items())


def variables_of(pid: int) -> dict[bytes, bytes]:
    """Return the variables with which a process was started; the first of a name counts."""
    entries = (entry.partition(b"=") for entry in reversed(environment_of(pid).split(b"\0")))
    return {name: value for name, _, value in entries}


def command_line(pid: int) -> str:
    """Return the command line of a process as human-readable text; empty when it cannot be read."""
    if not HAS_PROC:
        return " ".join(asked_of_psutil(pid, "cmdline") or ())
    return read_facts(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


def asked_of_psutil(pid: int, what: str) -> Any:
    """Return the result of a method of psutil's processes; None where it, or psutil, is not available."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        return getattr(psutil.Process(pid), what)()
    except (psutil.Error, OSError):
        # On macOS, what has ended meanwhile may be an error of the system.
        return None
