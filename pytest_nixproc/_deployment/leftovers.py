"""What a stop leaves behind: one judgement of it, after one grace, for every kind of stop; and its end.

The helpers of a daemon, a shell's last ``sleep`` and the child of a connection outlive their instance for a moment.
Left behind is what still runs when the grace is over: it may hold a port, and would answer in the place of whoever is
started next. So it is told, and ended.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from pytest_nixproc._inspection.observer import Observer
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import descendants
from pytest_nixproc.values.tags import INSTANCE
from pytest_nixproc.values.value import Value

GRACE_SECONDS: Final = 1.0
END_SECONDS: Final = 10.0
ROUND_SECONDS: Final = 0.5

StillRunning = Callable[[], Collection[int]]
"""Returns the processes that still run of what was stopped."""


class Leftover(Value):
    """A process that was left behind, and is ended."""

    pid: int
    instance: str
    """The instance whose name it carries; empty for none."""

    ports: tuple[str, ...]
    """The ports on which it listens, in words."""

    command: str

    @property
    def problem(self) -> str:
        """The problem that it is, in words."""
        whose = f" of {self.instance}" if self.instance else ""
        ports = f" holding {', '.join(self.ports)}," if self.ports else ""
        return f"process {self.pid}{whose} was left behind,{ports} and killed: {self.command}"


class Remains:
    """The processes of instances that are about to be stopped, and what their stops start: as long as they run."""

    def __init__(self, observer: Observer, names: Iterable[str]) -> None:
        self.observer = observer
        self.machine = observer.machine
        self.names = frozenset(names)
        pids = [pid for name in self.names for pid in observer.pids(name, observer.status(name))]
        self.identities = {pid: self.machine.processes.identity(pid) for pid in pids}
        """Their processes, each with what tells it from a later one of its number."""

    def look(self) -> set[int]:
        """Return those that run: the processes that were there before, their offspring, and what carries a name."""
        processes = self.machine.processes
        same = {pid for pid, identity in self.identities.items() if processes.identity(pid) == identity}
        left = same - processes.ended(same)
        below = descendants(left, processes.parents()) if left else ()
        named = (pid for pid in self.observer.strays() if processes.variable(pid, INSTANCE) in self.names)
        return left.union(below, named)


def left_behind(machine: Machine, look: StillRunning) -> list[int]:
    """Return the processes that a stop has left behind: those that outlive the grace."""
    is_clean = machine.deadline(GRACE_SECONDS).until(lambda: not look())
    return [] if is_clean else sorted(look())


def end_left_behind(machine: Machine, look: StillRunning, tag: str = "") -> list[Leftover]:
    """End the processes that a stop has left behind, and return them."""
    return end_all(machine, look, tag) if left_behind(machine, look) else []


def end_all(machine: Machine, look: StillRunning, tag: str = "") -> list[Leftover]:
    """Kill the processes that ``look`` finds, until it finds none; return them.

    All of them are frozen before the first is killed, so that they cannot fork faster than they die. What has got away
    by going on as its own child is pursued by the ``tag`` that all of it carries.
    """
    found: dict[int, Leftover] = {}
    deadline = machine.deadline(END_SECONDS)
    while (strays := sorted(look())) and deadline.remaining:
        if found and tag:
            strays = sorted({*strays, *machine.processes.freeze(tag)})
        found = {**{leftover.pid: leftover for leftover in leftovers(machine, strays)}, **found}
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in strays:
                machine.processes.signal(pid, number)
        machine.processes.wait_ended(strays, machine.deadline(ROUND_SECONDS))
    return [found[pid] for pid in sorted(found)]


def still_running(look: StillRunning) -> list[str]:
    """Return a problem if processes could not be ended: then nothing of theirs must be removed."""
    if not (pids := sorted(look())):
        return []
    return [f"process {', '.join(map(str, pids))} could not be ended: find out what keeps it, then nixproc reap"]


def leftovers(machine: Machine, strays: Collection[int]) -> Iterator[Leftover]:
    """Yield the facts about processes that were left behind and still run."""
    held: dict[int | None, list[str]] = {}
    for item in machine.network.listeners(strays, frozenset()):
        held.setdefault(item.pid, []).append(f"{item.protocol.upper()} port {item.port}")
    for pid in strays:
        ports = tuple(held.get(pid, ()))
        yield Leftover(pid, machine.processes.variable(pid, INSTANCE), ports, machine.processes.describe(pid))
