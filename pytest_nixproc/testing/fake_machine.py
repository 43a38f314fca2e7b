"""A fake machine: a clock that is driven by hand, files in memory, and processes that follow a script.

A deployment, a driver or a rule can be tested on it without spawning anything, and without waiting::

    machine = FakeMachine()
    machine.processes.program("/bin/server", listens(8080, after=0.5))
    pid = machine.processes.spawn(Spawn(("/bin/server",)))
    machine.clock.advance(0.5)
    assert machine.network.listeners() == [Listener("127.0.0.1", 8080, pid)]

Its parts are those of any machine, with more that a test can arrange. Time passes in ``pause`` and ``advance`` of the
clock alone. Programs without a script run until they are ended.
"""

from __future__ import annotations

import heapq
import os
import signal
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar, Final

from pytest_nixproc.machines.api import Machine, Result
from pytest_nixproc.machines.parts import AccountDatabase, Files, Lifecycle, Network, Processes
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.values.addresses import IPV4_LOOPBACK, bound_to, leads_to, open_ports, reached_at
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import Account, Accounts, Facts, Listener, ProcessInfo
from pytest_nixproc.values.state_files import StateDirectory, StateEntry, StateFile

FIRST_PID: Final = 1 << 23
"""Above all real pids (proc(5), pid_max): what is done to one by mistake reaches nobody."""

INIT: Final = 1
HARMLESS: Final = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGWINCH})
"""Signals that do not end a process by default (signal(7))."""


@dataclass(eq=False)
class FakeProcess:
    """One scripted process."""

    pid: int
    command: Spawn
    started: str = ""
    """The time on the clock when it was spawned."""

    parent: int = INIT
    """The pid of its parent."""

    ignored: frozenset[int] = frozenset()
    """The signals that it ignores."""

    received: list[int] = field(default_factory=list)
    """The signals that were sent to it, in their order."""

    status: int | None = None
    """How it has ended: a status, or minus a signal's number; None while it runs."""

    @property
    def runs(self) -> bool:
        """Tell whether the process has not ended yet."""
        return self.status is None


class FakeClock:
    """A clock that is driven by hand."""

    def __init__(self, machine: FakeMachine) -> None:
        self.time = 0.0
        self._machine = machine
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def now(self) -> float:
        """Return the time on the clock, in seconds."""
        return self.time

    def pause(self, seconds: float) -> None:
        """Advance the clock, up to the end of the first process that ends meanwhile."""
        end = self.time + seconds
        alive = len(self._machine.processes.running())
        while self._events and self._events[0][0] <= end:
            self._next_event()
            if len(self._machine.processes.running()) < alive:
                return
        self.time = end

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something when the clock has advanced by ``seconds``; now when it is 0."""
        if seconds <= 0:
            action()
        else:
            heapq.heappush(self._events, (self.time + seconds, next(self._numbers), action))

    def advance(self, seconds: float) -> None:
        """Advance the clock; events that become due happen at their times."""
        end = self.time + seconds
        while self._events and self._events[0][0] <= end:
            self._next_event()
        self.time = max(self.time, end)

    def _next_event(self) -> None:
        self.time, _, action = heapq.heappop(self._events)
        action()


class FakeProcesses(Processes):
    """Processes that follow the scripts of a test; ``by_pid`` has all that were ever started.

    ``seen`` and ``escaped`` is what a look at them shows, besides the main processes.
    """

    def __init__(self, machine: FakeMachine) -> None:
        self.by_pid: dict[int, FakeProcess] = {}
        self.seen: dict[int, ProcessInfo] = {}
        self.escaped: list[ProcessInfo] = []
        self._machine = machine
        self._programs: dict[str, Script] = {}
        self._pids = count(FIRST_PID)
        self._outputs = count()

    def program(self, path: str, script: Script) -> None:
        """Set the script that a program follows when it is spawned."""
        self._programs[path] = script

    def end(self, pid: int, status: int = 0) -> None:
        """End a process: its ports close, its children become orphans."""
        process = self.by_pid[pid]
        if not process.runs:
            return
        process.status = status
        self._machine.network.close_ports(pid)
        for child in self.by_pid.values():
            child.parent = INIT if child.parent == pid else child.parent

    def fork(self, parent: int, command: Spawn | None = None) -> int:
        """Start a child of a process, by default another one of its kind."""
        pid = self.spawn(command or self.by_pid[parent].command)
        self.by_pid[pid].parent = parent
        return pid

    def running(self) -> list[FakeProcess]:
        """Return the processes that have not ended, in the order of their start."""
        return [process for process in self.by_pid.values() if process.runs]

    def spawn(self, command: Spawn) -> int:
        """Start a process, and its script, if its program has one."""
        process = FakeProcess(next(self._pids), command, f"{self._machine.clock.time:.2f}")
        self.by_pid[process.pid] = process
        if script := self._programs.get(command.argv[0]):
            script(self._machine, process)
        return process.pid

    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands side by side, as far as the deadline lets them."""
        pids = [self.spawn(command) for command in commands]
        self.wait_ended(pids, deadline)
        return [self.exit_status(pid) for pid in pids]

    def capture(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command, and kill it at the deadline; its output is the text that its script appends to its file."""
        path = f"/captured/{next(self._outputs)}"
        (status,) = self.run([Spawn(command.argv, command.environment, path)], deadline)
        for process in self.running() if status is None else ():
            if process.command.output == path:
                self.end(process.pid, -signal.SIGKILL)
        return status, self._machine.files.contents.pop(path, b"").decode(errors="replace")

    def exit_status(self, pid: int) -> int | None:
        """Return how a process ended; None while it runs, or was never here."""
        return self.by_pid[pid].status if pid in self.by_pid else None

    def sync_exits(self) -> None:
        """Do nothing: the ends of all processes are known at once."""

    def ended(self, pids: Iterable[int]) -> set[int]:
        """Return the pids that do not run, those that were never here included."""
        return set(pids) - {process.pid for process in self.running()}

    def ending(self, pids: Iterable[int]) -> set[int]:
        """Return the pids that do not run: nothing here takes time to end."""
        return self.ended(pids)

    def start_time(self, pid: int) -> str:
        """Return the time on the clock when a process was spawned; empty when it was never here."""
        return self.by_pid[pid].started if pid in self.by_pid else ""

    def identity(self, pid: int) -> str:
        """Return the time on the clock when a process was spawned, which identifies it; empty when it has ended."""
        return self.start_time(pid) if pid in self.by_pid and self.by_pid[pid].runs else ""

    def signal(self, pid: int, number: int) -> None:
        """Deliver a signal; it ends the process unless it is ignored or harmless."""
        process = self.by_pid.get(pid)
        if process is None or not process.runs:
            return
        process.received.append(number)
        if number == signal.SIGKILL or number not in process.ignored | HARMLESS:
            self.end(pid, -number)

    def parents(self) -> dict[int, int]:
        """Return the parent of every process that runs."""
        return {process.pid: process.parent for process in self.running()}

    def strays(self, tag: str) -> list[int]:
        """Return the running processes with a tag, as the leftovers of a deployment."""
        return [process.pid for process in self.running() if self.has_tag(process.pid, tag)]

    def tagged(self, tag: str) -> list[int]:
        """Return the running processes with a tag, which are the same as the strays here."""
        return self.strays(tag)

    def has_tag(self, pid: int, tag: str) -> bool:
        """Tell whether a process has a tag in its environment."""
        name, _, value = tag.partition("=")
        return pid in self.by_pid and self.by_pid[pid].command.environment.get(name) == value

    def variable(self, pid: int, name: str) -> str:
        """Return the value of a variable in the environment of a process."""
        return self.by_pid[pid].command.environment.get(name, "") if pid in self.by_pid else ""

    def describe(self, pid: int) -> str:
        """Return a process's command line."""
        return " ".join(self.by_pid[pid].command.argv) if pid in self.by_pid else ""

    def inspect(self, mains: Sequence[int], tag: str) -> list[ProcessInfo]:  # noqa: ARG002 - escapees are arranged as such
        """Return facts about main processes, which a test can replace in ``seen``, and all processes in ``escaped``."""
        ports = self._machine.network.listeners()
        held = {pid: tuple(item for item in ports if item.pid == pid) for pid in mains}
        return [self.seen.get(pid, ProcessInfo(pid, pid, listening=held[pid])) for pid in mains] + self.escaped


class FakeFiles(Files):
    """Files in memory: their ``contents`` and ``modes``, and the targets of ``links``, are kept by path."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        super().__init__(facts)
        self.contents: dict[str, bytes] = {}
        self.modes: dict[str, int] = {}
        self.owners: dict[str, str] = {}
        """Owner and group of what a model describes, as ``user:group``; empty where it is who deploys."""

        self.links: dict[str, str] = {}
        self.directories: set[str] = set()
        self.sockets: set[str] = set()
        self.unexecutable: dict[str, str] = {}
        """Why programs cannot be executed, by path."""

    def append(self, path: str, text: str) -> None:
        """Append to a file, as a process that logs does."""
        self.contents[path] = self.contents.get(path, b"") + text.encode()

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Keep a file; its mode is that of the first writing."""
        self.contents[path] = content.encode(errors="surrogateescape")
        self.modes.setdefault(path, mode)

    def link(self, path: str, target: str) -> None:
        """Keep a symbolic link."""
        self.links[path] = target

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Keep a directory; one that exists keeps its mode."""
        self.directories.add(path)
        self.modes.setdefault(path, mode)

    def provide(
        self, place: str, directories: Sequence[StateDirectory], files: Sequence[StateFile], obsolete: Sequence[str]
    ) -> None:
        """Keep directories and files with their modes and owners, and forget obsolete files."""
        entries: tuple[StateEntry, ...] = (*directories, *files)
        for entry in entries:
            assert is_within(entry.path, place)
            self.modes[entry.path] = entry.mode
            self.owners[entry.path] = f"{entry.user}:{entry.group}"
        self.directories.update(directory.path for directory in directories)
        self.contents.update((file.path, file.text.encode(errors="surrogateescape")) for file in files)
        for path in obsolete:
            self.remove(path)

    def read(self, path: str, start: int = 0) -> bytes | None:
        """Return the content of a file, from byte ``start`` on."""
        return self.contents[path][start:] if path in self.contents else None

    def real_paths(self, paths: Iterable[str]) -> dict[str, str]:
        """Return paths in which a link stands for its target; one link a path is enough here."""
        return {path: next((real for link in self.links if (real := self._behind(link, path))), path) for path in paths}

    def _behind(self, link: str, path: str) -> str:
        """Return where a path through a link leads; empty for a path that does not."""
        target = os.path.normpath(os.path.join(os.path.dirname(link), self.links[link]))
        return target + path[len(link) :] if is_within(path, link) else ""

    def execution_problem(self, path: str) -> str:
        """Return what was arranged in ``unexecutable``."""
        return self.unexecutable.get(path, "")

    def size(self, path: str) -> int:
        """Return the size of a file."""
        return len(self.contents.get(path, b""))

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at or below a path."""
        return any(is_within(known, path) for known in self._paths())

    def remove(self, path: str) -> None:
        """Forget everything at and below a path."""
        for known in [known for known in self._paths() if is_within(known, path)]:
            self.contents.pop(known, None)
            self.modes.pop(known, None)
            self.links.pop(known, None)
            self.directories.discard(known)
            self.sockets.discard(known)

    def _paths(self) -> set[str]:
        return {*self.contents, *self.links, *self.directories, *self.sockets}

    def pack(self, path: str) -> bytes:
        """Return the content of a file, which stands for an archive of it."""
        return self.contents[path]

    def unpack(self, packed: bytes, path: str) -> None:
        """Write a packed file."""
        self.contents[path] = packed

    def modified_since(self, paths: Sequence[str], reference: str) -> list[str]:  # noqa: ARG002 - nothing here has a time
        """Return the files that exist, whenever they were written: nothing here has a time."""
        return [path for path in paths if path in self.contents]

    def created_since(self, directories: Sequence[str], named: Sequence[str], reference: str) -> list[tuple[str, int]]:  # noqa: ARG002
        """Return the named files that exist, with the caller's uid; others are left out: their owners are not kept."""
        return [(path, self._facts().account.uid) for path in named if path in self.contents]

    def software(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the given paths alone, sorted: fake programs load no other files."""
        return tuple(sorted(set(paths)))


class FakeNetwork(Network):
    """Ports that a test, or a script, has opened."""

    def __init__(self, files: FakeFiles) -> None:
        self._files = files
        self._sockets: dict[tuple[int, str], Listener] = {}
        self._udp: list[Listener] = []

    def listen(self, port: int, pid: int | None = None, host: str = IPV4_LOOPBACK) -> None:
        """Open a port; without a pid, of a process that cannot be seen."""
        self._sockets[port, host] = Listener(host, port, pid)

    def bind_udp(self, port: int, pid: int | None = None, host: str = IPV4_LOOPBACK) -> None:
        """Bind a UDP socket; without a pid, of a process that cannot be seen."""
        self._udp.append(Listener(host, port, pid, "udp"))

    def close_ports(self, pid: int) -> None:
        """Close the ports of a process."""
        self._sockets = {place: listener for place, listener in self._sockets.items() if listener.pid != pid}
        self._udp = [listener for listener in self._udp if listener.pid != pid]

    def listeners(
        self,
        likely: Iterable[int] = (),  # noqa: ARG002 - all are known
        wanted: Container[int] | None = None,  # noqa: ARG002
    ) -> list[Listener]:
        """Return the open ports, in order."""
        return [*(self._sockets[place] for place in sorted(self._sockets)), *self._udp]

    def open_ports(self) -> Mapping[int, Sequence[str]]:
        """Return the open ports, with the addresses at which they are reached."""
        return open_ports(self._sockets)

    def port_is_free(self, port: int, host: str = "") -> bool:
        """Tell whether nobody has opened a port, on an address or on any."""
        held = [bound for number, bound in self._sockets if number == port]
        return not any(leads_to(own, bound) or leads_to(bound, own) for own in bound_to(host) for bound in held)

    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Return why a port or a socket cannot be connected to; an empty text if it is open."""
        if isinstance(address, str):
            is_open = address in self._files.sockets
        else:
            held = [bound for number, bound in self._sockets if number == address[1]]
            is_open = any(leads_to(host, bound) for host in reached_at(address[0]) for bound in held)
        return "" if is_open else "Connection refused"

    def is_shared_with(self, pid: int) -> bool:  # noqa: ARG002 - nothing here has one of its own
        """Return True: there is one network."""
        return True


class FakeAccounts(AccountDatabase):
    """Accounts that a test has put here, by name; ``members`` has the other groups of users."""

    def __init__(self, machine: FakeMachine) -> None:
        self.users: dict[str, Account] = {}
        self.groups: dict[str, int] = {}
        self.members: dict[str, tuple[str, ...]] = {}
        self.run_as: dict[int, tuple[int, int]] = {}
        """Processes that do not run as who the machine's facts say, with their user and group."""

        self._machine = machine

    def named(self, users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
        """Return the accounts of these names that a test has put into ``users``, ``groups`` and ``members``."""
        found = {name: self.users[name] for name in users if name in self.users}
        members = {name: self.members.get(name, ()) for name in found}
        mentioned = {*groups, *(account.group for account in found.values())}.union(*members.values())
        return Accounts(found, {name: self.groups[name] for name in mentioned if name in self.groups}, members)

    def of(self, pid: int) -> tuple[int, int] | None:
        """Return the user and the group that a process runs as; None once it has ended."""
        own = self._machine.facts.account
        runs = pid in self._machine.processes.by_pid and self._machine.processes.by_pid[pid].runs
        return self.run_as.get(pid, (own.uid, own.gid)) if runs else None


class FakeLifecycle(Lifecycle):
    """A machine that is always there; deployments that it shall guard are kept in ``guarded``.

    ``recovery_seconds`` has how long the programs of each may take to stop.
    """

    def __init__(self, machine: FakeMachine) -> None:
        self.guarded: dict[str, tuple[str, ...]] = {}
        self.recovery_seconds: dict[str, float] = {}
        self.released = False
        self._machine = machine

    def prepare(self) -> None:
        """Do nothing: a fake machine is always ready."""

    def close(self) -> None:
        """End all processes, unless they were released."""
        for process in [] if self.released else self._machine.processes.running():
            self._machine.processes.end(process.pid, -signal.SIGKILL)

    def release(self) -> None:
        """Let the processes live on."""
        self.released = True

    def guard(self, root: str, recovery: Sequence[str], seconds: float = 0) -> int | None:
        """Keep the recovery command of a deployment in ``guarded``; nobody will run it."""
        self.guarded[root] = tuple(recovery)
        self.recovery_seconds[root] = seconds
        return None

    def unguard(self, root: str) -> None:
        """Forget the recovery command of a deployment."""
        self.guarded.pop(root, None)


class FakeMachine(Machine):
    """A machine that spawns nothing: a test arranges everything that happens on it."""

    name: ClassVar[str] = "fake"
    clock: FakeClock
    processes: FakeProcesses
    files: FakeFiles
    network: FakeNetwork
    accounts: FakeAccounts
    lifecycle: FakeLifecycle

    def __init__(self, facts: Facts | None = None) -> None:
        super().__init__()
        self._facts = facts or Facts()
        self.clock = FakeClock(self)
        self.processes = FakeProcesses(self)
        self.files = FakeFiles(lambda: self.facts)
        self.network = FakeNetwork(self.files)
        self.accounts = FakeAccounts(self)
        self.lifecycle = FakeLifecycle(self)

    def begin(self, action: Callable[[], Result]) -> Future[Result]:
        """Run the action at once: there is one clock, and nobody else advances it meanwhile."""
        future: Future[Result] = Future()
        future.set_result(action())
        return future

    @property
    def facts(self) -> Facts:
        """The facts that generated files may rely on."""
        return self._facts


Script = Callable[[FakeMachine, FakeProcess], None]
"""A function that is called when a program is spawned; it arranges the rest with :meth:`FakeClock.after`."""


def is_within(path: str, parent: str) -> bool:
    """Tell whether a path is another one or lies below it."""
    return path == parent or path.startswith(f"{parent}/")


def ends(status: int = 0, *, after: float = 0.0, output: str = "") -> Script:
    """Return the script of a program that prints, and ends by itself."""

    def script(machine: FakeMachine, process: FakeProcess) -> None:
        if process.command.output:
            machine.files.append(process.command.output, output)
        machine.clock.after(after, lambda: machine.processes.end(process.pid, status))

    return script


def listens(port: int, *, after: float = 0.0, host: str = IPV4_LOOPBACK) -> Script:
    """Return the script of a server that opens a port ``after`` some seconds, if it still runs at that time."""

    def open_port(machine: FakeMachine, process: FakeProcess) -> None:
        if process.runs:
            machine.network.listen(port, process.pid, host)

    return lambda machine, process: machine.clock.after(after, lambda: open_port(machine, process))


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
    return {process.command.argv[0]: process for process in machine.processes.running()}
