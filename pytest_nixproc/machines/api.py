"""The contract of a machine, and the verbs that every machine has for tests."""

from __future__ import annotations

import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from pytest_nixproc.errors import CommandFailed, MachineError
from pytest_nixproc.machines.archive import pack, unpack
from pytest_nixproc.machines.waiting import Deadline, wait_until

AnyCommand = str | Sequence[str]
"""A command: shell text, or a program's name and its arguments."""

Protocol = Literal["tcp", "udp"]

UNIT_PROPERTIES: Final = ("LoadState", "ActiveState", "SubState", "Job")

OUTPUT_TAIL = 2000
"""How many characters of a failed command's output an error shows."""

LOOK_UP_SECONDS: Final = 10.0
LOOK_UP: Final = """
command -v getent > /dev/null || { echo 'there is no getent'; exit 1; }
count=$1
shift
while [ "$count" -gt 0 ]; do
    getent passwd "$1" && id -G -- "$1"
    shift
    count=$((count - 1))
done
echo
getent group
getent group "$@"
exit 0
"""
"""Prints the entries of some users, each with the numbers of all of its groups; then the entries of groups."""


@dataclass(frozen=True)
class Spawn:
    """A command to start: arguments, its whole environment, and the file that its output is appended to."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    output: str | None = None


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket, or an UDP socket without a partner; and its process where that can be seen."""

    host: str
    port: int
    pid: int | None
    protocol: Protocol = "tcp"


@dataclass(frozen=True)
class Sight:
    """What can be seen of a process from outside, as far as the platform tells.

    ``main`` is the main process that it descends from, or is; None for one that has escaped, which names its
    ``instance`` itself. ``written`` are the files, FIFOs and sockets that it has open for writing, ``bound`` those of
    them that are sockets; ``shares_files`` tells whether they are the machine's own, and not a container's.
    ``listening`` are the ports that it has, of the machine's network.
    """

    pid: int
    main: int | None
    instance: str = ""
    umask: str = ""
    directory: str = ""
    written: tuple[str, ...] = ()
    is_zombie: bool = False
    shares_files: bool = True
    bound: tuple[str, ...] = ()
    listening: tuple[Listener, ...] = ()


@dataclass(frozen=True)
class Account:
    """A user and its group, by name and number."""

    user: str = "root"
    uid: int = 0
    group: str = "root"
    gid: int = 0


@dataclass(frozen=True)
class Accounts:
    """Accounts that a machine has, of those that were asked for, by name.

    ``members`` has the groups that a user belongs to besides its primary one; ``groups`` the number of every group that
    is mentioned. They ``are_known`` unless the machine could not be asked, because it does not run yet.
    """

    users: Mapping[str, Account] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    are_known: bool = True


@dataclass(frozen=True)
class Facts:
    """What generated files may rely on: where the machine keeps the software that they call.

    ``package_root`` is the directory that holds this package there; ``account`` is who processes run as when users are
    not changed; ``setpriv`` is empty where there is none; ``open_files`` is how many files a process may have open
    before it has to ask for more; ports below ``first_unprivileged_port`` are root's, ``client_ports`` those that
    clients get without asking for one (ip(7)).
    """

    shell: str = "/bin/sh"
    python: str = "/usr/bin/python3"
    package_root: str = "/usr/lib/python3/dist-packages"
    nice: str = "/usr/bin/nice"
    setpriv: str = "/usr/bin/setpriv"
    base_path: tuple[str, ...] = ("/usr/local/bin", "/usr/bin", "/bin")
    account: Account = field(default_factory=Account)
    open_files: int = 256
    first_unprivileged_port: int = 1024
    client_ports: range = range(32768, 61000)


@dataclass(frozen=True)
class Place:
    """What a throwaway machine gets of this host: a directory, a tag for its processes, and a network or not.

    ``directory`` is all that the machine and this host share, under the same path on both; deployments lie in it.
    """

    directory: str = ""
    tag: str = ""
    private_network: bool = False


class Machine(ABC):
    """Where a system runs: files, processes, sockets and time; then the verbs that tests use.

    ``spawn`` and what follows it are called by the deployment engine and by the managers' drivers.
    """

    name: ClassVar[str]
    throwaway: ClassVar[bool] = False
    """Whether the machine is made for a system and gone with it: then anything may be done to it."""

    def __init__(self, place: Place | None = None) -> None:
        self.place = place or Place()

    @classmethod
    def obstacle(cls) -> str:
        """Say why no such machine can be had here, with the remedy, or return an empty text."""
        return ""

    @classmethod
    def clear_away(cls, directory: str) -> list[str]:  # noqa: ARG003 - most leave nothing
        """Remove what a machine, which is gone, has left on this host outside its directory; return what stays."""
        return []

    @property
    def is_up(self) -> bool:
        """Tell whether the machine runs."""
        return True

    @property
    def boots(self) -> int:
        """How often the machine has been booted by us: what was started on it is gone when this has changed."""
        return 0

    @property
    def is_released(self) -> bool:
        """Tell whether the machine's processes live on after :meth:`close`."""
        return False

    def put_down(self) -> None:  # noqa: B027 - only machines of their own have an end
        """End the machine at once with everything on it; harmless when it is down already."""

    @property
    def loss(self) -> MachineError | None:
        """Return how the machine was lost; None while it is up, and when it was a test that put it down."""
        return None

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What generated files may rely on."""

    @abstractmethod
    def now(self) -> float:
        """Return monotonic seconds."""

    @abstractmethod
    def pause(self, seconds: float) -> None:
        """Sleep for ``seconds`` at most; less when a process ends meanwhile."""

    @abstractmethod
    def prepare(self) -> None:
        """Begin to get ready for processes, without waiting for it; harmless when called again."""

    @abstractmethod
    def close(self) -> None:
        """End what the machine itself keeps running; processes that still run below it are ended too."""

    @abstractmethod
    def release(self) -> None:
        """Let the processes live on after :meth:`close`."""

    @abstractmethod
    def spawn(self, command: Spawn) -> int:
        """Start a process and return its pid; raises :class:`~pytest_nixproc.errors.MachineError` if it cannot."""

    @abstractmethod
    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands side by side; return their exit statuses, None for what still runs at the deadline."""

    @abstractmethod
    def exit_status(self, pid: int) -> int | None:
        """Return how a process ended, as far as the machine saw it: a status, or minus a signal's number."""

    @abstractmethod
    def catch_up(self) -> None:
        """Make sure that :meth:`exit_status` knows of all processes that have ended by now, as far as it ever will."""

    @abstractmethod
    def ended(self, pids: Iterable[int]) -> set[int]:
        """Return those of ``pids`` that do not run any more."""

    @abstractmethod
    def start_time(self, pid: int) -> str:
        """Return when a process started, as proc(5) counts it: with the pid, its identity. Empty where unknown."""

    @abstractmethod
    def identity(self, pid: int) -> str:
        """Return what tells a process from later ones with its pid; empty for one that is gone."""

    @abstractmethod
    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process; one that has ended is no error."""

    @abstractmethod
    def parents(self) -> dict[int, int]:
        """Return the parent of every process."""

    @abstractmethod
    def guard(self, root: str, recovery: Sequence[str]) -> int | None:
        """Have a command run should this process end before :meth:`unguard`; return the pid of who will run it.

        Raises :class:`~pytest_nixproc.errors.MachineError` when nobody can be had for that.
        """

    @abstractmethod
    def unguard(self, root: str) -> None:
        """Take back what :meth:`guard` has asked for."""

    @abstractmethod
    def strays(self, tag: str) -> list[int]:
        """Return what this process has started with ``NAME=VALUE`` in its environment, and all of its offspring."""

    @abstractmethod
    def tagged(self, tag: str) -> list[int]:
        """Return the processes of the whole machine that have ``NAME=VALUE`` in their environment."""

    @abstractmethod
    def shares_network(self, pid: int) -> bool:
        """Tell whether a process uses the machine's network, not one of its own."""

    @abstractmethod
    def sights(self, mains: Sequence[int], tag: str) -> list[Sight]:
        """Look at main processes, at all of their offspring, and at what has escaped from them and carries a tag."""

    @abstractmethod
    def newer(self, paths: Sequence[str], reference: str) -> list[str]:
        """Return those of some files and directories that have changed since another one has."""

    @abstractmethod
    def appeared(self, directories: Sequence[str], named: Sequence[str], reference: str) -> list[tuple[str, int]]:
        """Return what some directories, and those in them, got since another file has changed; with its user's number.

        ``~`` stands for the caller's home. Files that were there before are looked at only when they are ``named``.
        """

    @abstractmethod
    def describe(self, pid: int) -> str:
        """Return a process's command line for people."""

    @abstractmethod
    def has_tag(self, pid: int, tag: str) -> bool:
        """Tell whether a process was started with ``tag`` in its environment."""

    @abstractmethod
    def listeners(self, likely: Iterable[int] = (), wanted: Container[int] | None = None) -> list[Listener]:
        """Return all listening sockets of the machine; ``likely`` processes are looked at before all others.

        Those of UDP are among them when they have no partner; clients' are so too for a moment.

        Given ``wanted`` ports, the holders of others may be left out, unless they are likely, or were started by us,
        or descend from such a process.
        """

    @abstractmethod
    def port_is_free(self, port: int) -> bool:
        """Tell whether a server could listen on the port now, on any address."""

    @abstractmethod
    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Connect to a host and port, or to a Unix socket's path; return why not, or an empty text."""

    @abstractmethod
    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file, with the directories it needs."""

    @abstractmethod
    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, with the directories it needs; one of that path is replaced."""

    @abstractmethod
    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Make a directory, with the directories it needs; one that exists is left alone."""

    @abstractmethod
    def read(self, path: str, start: int = 0) -> bytes | None:
        """Return a file's content from byte ``start`` on; None without such a file."""

    @abstractmethod
    def size(self, path: str) -> int:
        """Return a file's size in bytes; 0 without such a file."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tell whether there is a file, directory or socket of that path."""

    @abstractmethod
    def software(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the directories and files that hold ``paths`` and everything that programs among them load.

        What the machine needs to run anything at all is part of it; paths that do not exist are left out.
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file or a whole directory; one that does not exist is no error."""

    @abstractmethod
    def pack(self, path: str) -> bytes:
        """Return a file or directory as an archive; raises :class:`~pytest_nixproc.errors.MachineError`."""

    @abstractmethod
    def unpack(self, packed: bytes, path: str) -> None:
        """Put what was packed at a path; raises :class:`~pytest_nixproc.errors.MachineError`."""

    @abstractmethod
    def capture(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command; return its exit status (None: still running, and killed) and its output."""

    def capture_beside_tests(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command where the tests run, as :meth:`capture` does; the machine need not be up for it."""
        return self.capture(command, deadline)

    def accounts(self, users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
        """Look accounts up in the machine's own database, with getent(1).

        Raises :class:`~pytest_nixproc.errors.MachineError` when that cannot be done.
        """
        users, groups = list(users), list(groups)
        argv = (self.facts.shell, "-c", LOOK_UP, "sh", str(len(users)), *users, *groups)
        spawn = Spawn(argv, {"PATH": self.path_variable})
        status, output = self.capture(spawn, self.deadline(LOOK_UP_SECONDS))
        if status != 0:
            raise MachineError(f"cannot look accounts up with getent: {output.strip() or 'no answer'}")
        return read_accounts(output, users, groups)

    def account_of(self, pid: int) -> tuple[int, int] | None:
        """Return the effective user and group that a process runs as; None where that cannot be seen (proc(5))."""
        lines = (self.read(f"/proc/{pid}/status") or b"").splitlines()
        ids = {line.split()[0]: int(line.split()[2]) for line in lines if line.startswith((b"Uid:", b"Gid:"))}
        return (ids[b"Uid:"], ids[b"Gid:"]) if len(ids) == 2 else None

    def deadline(self, seconds: float) -> Deadline:
        """Return a deadline on this machine's clock."""
        return Deadline(self, seconds)

    @property
    def path_variable(self) -> str:
        """``PATH`` of the machine's own software."""
        return ":".join(self.facts.base_path)

    def which(self, name: str) -> str:
        """Return the path of one of the machine's own programs; empty without one of that name."""
        return next(filter(self.exists, (f"{directory}/{name}" for directory in self.facts.base_path)), "")

    def address(self, port: int) -> tuple[str, int]:
        """Return the host and port by which the tests reach a TCP port of the machine."""
        return "127.0.0.1", port

    def start(self) -> None:  # noqa: B027 - a machine that always runs has nothing to do
        """Boot the machine; one that is up is left alone. Raises :class:`~pytest_nixproc.errors.MachineError`."""

    def shutdown(self, *, timeout: float = 60) -> None:  # noqa: ARG002 - only machines of their own can
        """Power the machine off in an orderly way, and wait for its end; :meth:`start` boots it anew."""
        raise self._not_possible("be shut down")

    def crash(self) -> None:
        """End the machine at once, with everything on it; :meth:`start` boots it anew."""
        raise self._not_possible("be crashed")

    def block(self) -> None:
        """Cut the machine's network off from the tests, as if its cable were pulled."""
        raise self._not_possible("be cut off")

    def unblock(self) -> None:
        """Undo :meth:`block`."""
        raise self._not_possible("be cut off")

    def _not_possible(self, what: str) -> MachineError:
        remedy = "use a machine that is thrown away: --nixproc-machine=nspawn"
        return MachineError(f"machine {self.name} cannot {what}: the tests run on it", remedy=remedy)

    def execute(self, command: AnyCommand, *, timeout: float = 60) -> tuple[int | None, str]:
        """Run a command; return its exit status (None when it was killed at the timeout) and its output."""
        spawn = Spawn((self.facts.shell, "-c", *words_of(command)), {"PATH": self.path_variable})
        return self.capture(spawn, self.deadline(timeout))

    def succeed(self, *commands: AnyCommand, timeout: float = 60) -> str:
        """Run commands that must all succeed; return their output."""
        outputs = []
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if status != 0:
                raise CommandFailed(f"command {describe_failure(command, status)}", details=output[-OUTPUT_TAIL:])
            outputs.append(output)
        return "".join(outputs)

    def fail(self, *commands: AnyCommand, timeout: float = 60) -> str:
        """Run commands that must all fail; return their output."""
        outputs = []
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if status == 0:
                brief = f"command succeeded, although it must fail: {text_of(command)}"
                raise CommandFailed(brief, details=output[-OUTPUT_TAIL:])
            outputs.append(output)
        return "".join(outputs)

    def wait_until_succeeds(self, command: AnyCommand, *, timeout: float = 60) -> str:
        """Run a command again and again until it succeeds; return its output then."""
        return self._repeat(command, lambda status: status == 0, timeout, "succeed")

    def wait_until_fails(self, command: AnyCommand, *, timeout: float = 60) -> str:
        """Run a command again and again until it fails; return its output then."""
        return self._repeat(command, lambda status: status != 0, timeout, "fail")

    def _repeat(self, command: AnyCommand, wanted: Callable[[int | None], bool], timeout: float, verb: str) -> str:
        deadline = self.deadline(timeout)
        last, missing = "", ""

        def look() -> str:
            nonlocal last, missing
            status, last = self.execute(command, timeout=max(deadline.remaining, 0.1))
            if wanted(status):
                return ""
            # A try that the end of the wait has cut short says less than the one before it.
            if status is not None or not missing:
                missing = f"{describe_failure(command, status)}\n{last[-OUTPUT_TAIL:]}"
            return missing

        wait_until(look, deadline, f"wait for a command to {verb}: {text_of(command)}")
        return last

    def wait_for_open_port(self, port: int, host: str = "127.0.0.1", *, timeout: float = 60) -> None:
        """Wait until a TCP port accepts connections."""
        wait_until(lambda: self.connection_problem((host, port)), self.deadline(timeout), f"wait for port {port}")

    def wait_for_closed_port(self, port: int, host: str = "127.0.0.1", *, timeout: float = 60) -> None:
        """Wait until a TCP port refuses connections."""

        def look() -> str:
            return "" if self.connection_problem((host, port)) else "it accepts connections"

        wait_until(look, self.deadline(timeout), f"wait for port {port} to be closed")

    def wait_for_open_unix_socket(self, path: str, *, timeout: float = 60) -> None:
        """Wait until a Unix socket accepts connections."""
        wait_until(lambda: self.connection_problem(path), self.deadline(timeout), f"wait for socket {path}")

    def wait_for_file(self, path: str, *, timeout: float = 60) -> None:
        """Wait until a file exists."""
        what = f"wait for file {path}"
        wait_until(lambda: "" if self.exists(path) else "no such file", self.deadline(timeout), what)

    def systemctl(self, arguments: AnyCommand, *, timeout: float = 60) -> tuple[int | None, str]:
        """Run systemctl for the machine's own systemd; return its exit status and output."""
        words = shlex.split(arguments) if isinstance(arguments, str) else arguments
        return self.execute(["systemctl", "--no-pager", *words], timeout=timeout)

    def wait_for_unit(self, unit: str, *, timeout: float = 60) -> None:
        """Wait until a unit of the machine's own systemd is active.

        Raises :class:`~pytest_nixproc.errors.CommandFailed` at once for a unit that is unknown, has failed, or is
        inactive without a job that would start it.
        """
        deadline = self.deadline(timeout)
        wait_until(lambda: self._missing_of_unit(unit, deadline), deadline, f"wait for unit {unit}")

    def _missing_of_unit(self, unit: str, deadline: Deadline) -> str:
        asked = ["show", f"--property={','.join(UNIT_PROPERTIES)}", "--", unit]
        status, output = self.systemctl(asked, timeout=max(deadline.remaining, 1))
        state = dict(line.partition("=")[::2] for line in output.splitlines())
        if status != 0 or not state.keys() >= set(UNIT_PROPERTIES):
            raise CommandFailed(f"systemctl cannot say how unit {unit} is", details=output[-OUTPUT_TAIL:])
        text = f"it is {state['ActiveState']} ({state['SubState']})"
        if state["LoadState"] != "loaded":
            raise CommandFailed(f"unit {unit} cannot be waited for: it is {state['LoadState']}")
        if state["ActiveState"] == "failed" or (state["ActiveState"] == "inactive" and state["Job"] in ("", "0")):
            _, said = self.systemctl(["status", "--full", "--", unit])
            raise CommandFailed(f"unit {unit} will not become active: {text}", details=said[-OUTPUT_TAIL:])
        return "" if state["ActiveState"] == "active" else text

    def copy_from_host(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy a file or directory of the test process's machine to a path of this one; memory has to hold it."""
        self.unpack(pack(os.fspath(source)), target)

    def copy_to_host(self, source: str, target: str | os.PathLike[str]) -> None:
        """Copy a file or directory of this machine to a path of the test process's one; memory has to hold it."""
        unpack(self.pack(source), os.fspath(target))


def text_of(command: AnyCommand) -> str:
    """Return a command as one would type it."""
    return command if isinstance(command, str) else shlex.join(command)


def words_of(command: AnyCommand) -> tuple[str, ...]:
    """Return what a shell's ``-c`` is given to run a command; it finds programs in PATH."""
    return (command,) if isinstance(command, str) else ('exec "$@"', "sh", *command)


def read_accounts(output: str, users: Iterable[str], groups: Iterable[str]) -> Accounts:
    """Read what :data:`LOOK_UP` prints; getent takes a number for an id, so names are compared."""
    upper, _, lower = output.partition("\n\n") if not output.startswith("\n") else ("", "", output)
    numbers = {fields[0]: int(fields[2]) for line in lower.split("\n") if len(fields := line.split(":")) >= 4}
    names = {number: name for name, number in numbers.items()}
    lines = upper.split("\n")
    found: dict[str, Account] = {}
    members: dict[str, tuple[str, ...]] = {}
    for entry, ids in zip(lines[::2], lines[1::2], strict=False):
        name, _, uid, gid = entry.split(":")[:4]
        if name in set(users):
            found[name] = Account(name, int(uid), names.get(int(gid), gid), int(gid))
            members[name] = tuple(names.get(int(number), number) for number in ids.split() if number != gid)
    mentioned = {
        *groups,
        *(account.group for account in found.values()),
        *(name for all_ in members.values() for name in all_),
    }
    return Accounts(found, {name: numbers[name] for name in mentioned if name in numbers}, members)


def describe_failure(command: AnyCommand, status: int | None) -> str:
    """Word how a command ended: ``ended with status 3: ls /nowhere``."""
    text = text_of(command)
    if status is None:
        return f"was killed at its time limit: {text}"
    return f"{describe_status(status)}: {text}"


def describe_status(status: int) -> str:
    """Word an exit status, minus a signal's number for a killed process."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
