"""A machine of the mind: a clock driven by hand, files in memory, processes that do what a script says.

The engine, a driver or a rule can be tested on it without spawning anything, and without waiting::

    machine = FakeMachine()
    machine.program("/bin/server", listens(8080, after=0.5))
    pid = machine.spawn(Spawn(("/bin/server",)))
    machine.pause(0.5)
    assert machine.listeners() == [Listener("127.0.0.1", 8080, pid)]

Time passes in ``pause`` and ``advance`` alone. Programs without a script run until they are ended.
"""

from __future__ import annotations

import heapq
import signal
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar, Final

from pytest_nixproc.machines.api import Account, Accounts, Facts, Listener, Machine, Sight, Spawn
from pytest_nixproc.machines.waiting import Deadline

FIRST_PID: Final = 1 << 23
"""Above all real pids (proc(5), pid_max): what is done to one by mistake reaches nobody."""

INIT: Final = 1
HARMLESS: Final = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGWINCH})
"""Signals that do not end a process by default (signal(7))."""

LOCALHOST: Final = "127.0.0.1"


@dataclass(eq=False)
class FakeProcess:
    """One scripted process; ``status`` is None while it runs."""

    pid: int
    command: Spawn
    started: str = ""
    parent: int = INIT
    ignored: frozenset[int] = frozenset()
    received: list[int] = field(default_factory=list)
    status: int | None = None

    @property
    def runs(self) -> bool:
        """Tell whether it has not ended yet."""
        return self.status is None


class FakeMachine(Machine):
    """A machine that spawns nothing: what happens on it is what a test arranges."""

    name: ClassVar[str] = "fake"

    def __init__(self, facts: Facts | None = None) -> None:
        super().__init__()
        self.time = 0.0
        self.files: dict[str, bytes] = {}
        self.modes: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self.directories: set[str] = set()
        self.sockets: set[str] = set()
        self.processes: dict[int, FakeProcess] = {}
        self.guarded: dict[str, tuple[str, ...]] = {}
        self.users: dict[str, Account] = {}
        self.groups: dict[str, int] = {}
        self.members: dict[str, tuple[str, ...]] = {}
        self.run_as: dict[int, tuple[int, int]] = {}
        """Processes that do not run as who the machine's facts say, with their user and group."""
        self.seen: dict[int, Sight] = {}
        self.escaped: list[Sight] = []
        self.released = False
        self._facts = facts or Facts()
        self._ports: dict[int, Listener] = {}
        self._programs: dict[str, Script] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._pids = count(FIRST_PID)

    # What tests arrange.

    def program(self, path: str, script: Script) -> None:
        """Say what a program does when it is spawned."""
        self._programs[path] = script

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something when the clock has advanced by ``seconds``; now when it is 0."""
        if seconds <= 0:
            action()
        else:
            heapq.heappush(self._events, (self.time + seconds, next(self._numbers), action))

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due happen at its time."""
        end = self.time + seconds
        while self._events and self._events[0][0] <= end:
            self._next_event()
        self.time = max(self.time, end)

    def _next_event(self) -> None:
        self.time, _, action = heapq.heappop(self._events)
        action()

    def end(self, pid: int, status: int = 0) -> None:
        """End a process: its ports close, its children become orphans."""
        process = self.processes[pid]
        if not process.runs:
            return
        process.status = status
        self._ports = {port: listener for port, listener in self._ports.items() if listener.pid != pid}
        for child in self.processes.values():
            child.parent = INIT if child.parent == pid else child.parent

    def fork(self, parent: int, command: Spawn | None = None) -> int:
        """Start a child of a process, by default another one of its kind."""
        pid = self.spawn(command or self.processes[parent].command)
        self.processes[pid].parent = parent
        return pid

    def listen(self, port: int, pid: int | None = None, host: str = LOCALHOST) -> None:
        """Open a port; without a pid, of a process that cannot be seen."""
        self._ports[port] = Listener(host, port, pid)

    def append(self, path: str, text: str) -> None:
        """Append to a file, as a process that logs does."""
        self.files[path] = self.files.get(path, b"") + text.encode()

    def running(self) -> list[FakeProcess]:
        """Return the processes that have not ended, in the order of their start."""
        return [process for process in self.processes.values() if process.runs]

    # The contract of a machine.

    @property
    def facts(self) -> Facts:
        """What generated files may rely on."""
        return self._facts

    def now(self) -> float:
        """Return the hand-driven clock."""
        return self.time

    def pause(self, seconds: float) -> None:
        """Advance the clock, up to the end of the first process that ends meanwhile."""
        end = self.time + seconds
        alive = len(self.running())
        while self._events and self._events[0][0] <= end:
            self._next_event()
            if len(self.running()) < alive:
                return
        self.time = end

    def prepare(self) -> None:
        """Do nothing: a fake machine is always ready."""

    def close(self) -> None:
        """End all processes, unless they were released."""
        for process in [] if self.released else self.running():
            self.end(process.pid, -signal.SIGKILL)

    def release(self) -> None:
        """Let the processes live on."""
        self.released = True

    def spawn(self, command: Spawn) -> int:
        """Start a process, and its script, if its program has one."""
        process = FakeProcess(next(self._pids), command, f"{self.time:.2f}")
        self.processes[process.pid] = process
        if script := self._programs.get(command.argv[0]):
            script(self, process)
        return process.pid

    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands side by side, as far as the deadline lets them."""
        pids = [self.spawn(command) for command in commands]
        for _ in deadline.pauses():
            if self.ended(pids) == set(pids):
                break
        return [self.exit_status(pid) for pid in pids]

    def pack(self, path: str) -> bytes:
        """Return the content of a file: an archive of the mind has one."""
        return self.files[path]

    def unpack(self, packed: bytes, path: str) -> None:
        """Write such a file."""
        self.files[path] = packed

    def capture(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command, and kill it at the deadline; its output is what its script appends to the command's file."""
        path = f"/captured/{next(self._numbers)}"
        (status,) = self.run([Spawn(command.argv, command.environment, path)], deadline)
        for process in self.running() if status is None else ():
            if process.command.output == path:
                self.end(process.pid, -signal.SIGKILL)
        return status, self.files.pop(path, b"").decode(errors="replace")

    def exit_status(self, pid: int) -> int | None:
        """Return how a process ended; None while it runs, or was never here."""
        return self.processes[pid].status if pid in self.processes else None

    def catch_up(self) -> None:
        """Know everything, as ever."""

    def ended(self, pids: Iterable[int]) -> set[int]:
        """Return those that do not run; a pid that was never here does not."""
        return set(pids) - {process.pid for process in self.running()}

    def start_time(self, pid: int) -> str:
        """Return the time on the clock when a process was spawned; empty when it was never here."""
        return self.processes[pid].started if pid in self.processes else ""

    def identity(self, pid: int) -> str:
        """Return the same."""
        return self.start_time(pid)

    def signal(self, pid: int, number: int) -> None:
        """Deliver a signal; it ends the process unless it is ignored or harmless."""
        process = self.processes.get(pid)
        if process is None or not process.runs:
            return
        process.received.append(number)
        if number == signal.SIGKILL or number not in process.ignored | HARMLESS:
            self.end(pid, -number)

    def parents(self) -> dict[int, int]:
        """Return the parent of every process that runs."""
        return {process.pid: process.parent for process in self.running()}

    def guard(self, root: str, recovery: Sequence[str]) -> int | None:
        """Keep what would have to be run, in ``guarded``; nobody will run it."""
        self.guarded[root] = tuple(recovery)
        return None

    def unguard(self, root: str) -> None:
        """Forget what would have had to be run."""
        self.guarded.pop(root, None)

    def tagged(self, tag: str) -> list[int]:
        """Return what runs with a tag."""
        return self.strays(tag)

    def strays(self, tag: str) -> list[int]:
        """Return what runs with a tag."""
        return [process.pid for process in self.running() if self.has_tag(process.pid, tag)]

    def shares_network(self, pid: int) -> bool:  # noqa: ARG002 - nothing here has one of its own
        """Return True: there is one network."""
        return True

    def accounts(self, users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
        """Return what a test has put into ``users``, ``groups`` and ``members``."""
        found = {name: self.users[name] for name in users if name in self.users}
        members = {name: self.members.get(name, ()) for name in found}
        mentioned = {*groups, *(account.group for account in found.values())}.union(*members.values())
        return Accounts(found, {name: self.groups[name] for name in mentioned if name in self.groups}, members)

    def account_of(self, pid: int) -> tuple[int, int] | None:
        """Return who a process runs as, until it has ended."""
        own = self.facts.account
        runs = pid in self.processes and self.processes[pid].runs
        return self.run_as.get(pid, (own.uid, own.gid)) if runs else None

    def sights(self, mains: Sequence[int], tag: str) -> list[Sight]:  # noqa: ARG002 - escapees are arranged as such
        """Return what a test has put into ``seen``, and the main processes that run."""
        held = {pid: tuple(item for item in self._ports.values() if item.pid == pid) for pid in mains}
        return [self.seen.get(pid, Sight(pid, pid, listening=held[pid])) for pid in mains] + self.escaped

    def newer(self, paths: Sequence[str], reference: str) -> list[str]:  # noqa: ARG002 - nothing here has a time
        """Return the files that there are."""
        return [path for path in paths if path in self.files]

    def appeared(self, directories: Sequence[str], named: Sequence[str], reference: str) -> list[tuple[str, int]]:  # noqa: ARG002
        """Return the named files that there are; who has written the others is not kept."""
        return [(path, self.facts.account.uid) for path in named if path in self.files]

    def describe(self, pid: int) -> str:
        """Return a process's command line."""
        return " ".join(self.processes[pid].command.argv) if pid in self.processes else ""

    def has_tag(self, pid: int, tag: str) -> bool:
        """Tell whether a process has a tag in its environment."""
        name, _, value = tag.partition("=")
        return pid in self.processes and self.processes[pid].command.environment.get(name) == value

    def listeners(
        self,
        likely: Iterable[int] = (),  # noqa: ARG002 - all are known
        wanted: Container[int] | None = None,  # noqa: ARG002
    ) -> list[Listener]:
        """Return the open ports, in order."""
        return [self._ports[port] for port in sorted(self._ports)]

    def port_is_free(self, port: int) -> bool:
        """Tell whether nobody has opened a port."""
        return port not in self._ports

    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Say whether a port or a socket is open."""
        is_open = address in self.sockets if isinstance(address, str) else address[1] in self._ports
        return "" if is_open else "Connection refused"

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Keep a file; its mode is that of the first writing."""
        self.files[path] = content.encode(errors="surrogateescape")
        self.modes.setdefault(path, mode)

    def link(self, path: str, target: str) -> None:
        """Keep a symbolic link."""
        self.links[path] = target

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Keep a directory; one that exists keeps its mode."""
        self.directories.add(path)
        self.modes.setdefault(path, mode)

    def read(self, path: str, start: int = 0) -> bytes | None:
        """Return what was written, from byte ``start`` on."""
        return self.files[path][start:] if path in self.files else None

    def size(self, path: str) -> int:
        """Return the size of a file."""
        return len(self.files.get(path, b""))

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at or below a path."""
        return any(is_within(known, path) for known in self._paths())

    def software(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the paths themselves: nothing here loads anything."""
        return tuple(sorted(set(paths)))

    def remove(self, path: str) -> None:
        """Forget everything at and below a path."""
        for known in [known for known in self._paths() if is_within(known, path)]:
            self.files.pop(known, None)
            self.modes.pop(known, None)
            self.links.pop(known, None)
            self.directories.discard(known)
            self.sockets.discard(known)

    def _paths(self) -> set[str]:
        return {*self.files, *self.links, *self.directories, *self.sockets}


Script = Callable[[FakeMachine, FakeProcess], None]
"""What a program does when it is spawned; it arranges the rest with :meth:`FakeMachine.after`."""


def is_within(path: str, parent: str) -> bool:
    """Tell whether a path is another one or lies below it."""
    return path == parent or path.startswith(f"{parent}/")


def ends(status: int = 0, *, after: float = 0.0, output: str = "") -> Script:
    """Return the script of a program that prints, and ends by itself."""

    def script(machine: FakeMachine, process: FakeProcess) -> None:
        if process.command.output:
            machine.append(process.command.output, output)
        machine.after(after, lambda: machine.end(process.pid, status))

    return script


def listens(port: int, *, after: float = 0.0) -> Script:
    """Return the script of a server that opens a port, if it still runs then."""

    def open_port(machine: FakeMachine, process: FakeProcess) -> None:
        if process.runs:
            machine.listen(port, process.pid)

    return lambda machine, process: machine.after(after, lambda: open_port(machine, process))


def ignores(*numbers: int) -> Script:
    """Return the script of a program that does not react to signals; SIGKILL it cannot ignore."""

    def script(_: FakeMachine, process: FakeProcess) -> None:
        process.ignored = frozenset(numbers)

    return script


def each(*scripts: Script) -> Script:
    """Return the script of a program that does several things."""

    def script(machine: FakeMachine, process: FakeProcess) -> None:
        for part in scripts:
            part(machine, process)

    return script


def by_program(machine: FakeMachine) -> Mapping[str, FakeProcess]:
    """Return the processes that run, by their program; the last one of each."""
    return {process.command.argv[0]: process for process in machine.running()}
