"""The parts of a machine, which drivers of managers, deployments and rules work with, as contracts."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import Accounts, Facts, Listener, ProcessInfo
from pytest_nixproc.values.state_files import StateDirectory, StateFile


class Processes(ABC):
    """The processes of the machine; pids are the machine's own numbers."""

    @abstractmethod
    def spawn(self, command: Spawn) -> int:
        """Start a process and return its pid; raises :class:`~pytest_nixproc.errors.MachineError` if it cannot."""

    @abstractmethod
    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands side by side; return their exit statuses, None for those that still run at the deadline."""

    @abstractmethod
    def capture(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command; return its exit status (None: still running, and killed) and its output."""

    def capture_beside_tests(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command where the tests run, as :meth:`capture` does; the machine need not be up for it."""
        return self.capture(command, deadline)

    @abstractmethod
    def exit_status(self, pid: int) -> int | None:
        """Return how a process ended, as far as the machine saw it: a status, or minus a signal's number."""

    @abstractmethod
    def sync_exits(self) -> None:
        """Make sure that :meth:`exit_status` knows of all processes that have ended by now, as far as it ever will."""

    @abstractmethod
    def ended(self, pids: Iterable[int]) -> set[int]:
        """Return which of ``pids`` do not run any more."""

    @abstractmethod
    def ending(self, pids: Iterable[int]) -> set[int]:
        """Return which of ``pids`` have ended or begun to, as who has lost a connection to one may know already."""

    def wait_ended(self, pids: Iterable[int], deadline: Deadline) -> set[int]:
        """Wait for processes to end; return those that still run at the deadline."""
        running = set(pids)

        def holds() -> bool:
            running.difference_update(self.ended(running))
            return not running

        deadline.until(holds)
        return running

    @abstractmethod
    def start_time(self, pid: int) -> str:
        """Return a process's start time (proc(5)), which identifies it together with the pid; empty if unknown."""

    @abstractmethod
    def identity(self, pid: int) -> str:
        """Return a text that distinguishes a process from later ones that reuse its pid; empty without a process."""

    @abstractmethod
    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process; one that has ended is no error."""

    @abstractmethod
    def parents(self) -> dict[int, int]:
        """Return the parent of every process."""

    @abstractmethod
    def strays(self, tag: str) -> list[int]:
        """Return the descendants of the test process that have ``NAME=VALUE`` in their environment.

        Programs can overwrite their environment, so those without any tag may be among them. A throwaway machine has
        only ours, and returns all that have it.
        """

    @abstractmethod
    def tagged(self, tag: str) -> list[int]:
        """Return the processes of the whole machine that have ``NAME=VALUE`` in their environment."""

    def freeze(self, tag: str) -> list[int]:
        """Stop (SIGSTOP) the processes that :meth:`tagged` finds, and what they have become meanwhile; return them."""
        pids = self.tagged(tag)
        for pid in pids:
            self.signal(pid, signal.SIGSTOP)
        return pids

    @abstractmethod
    def has_tag(self, pid: int, tag: str) -> bool:
        """Tell whether a process was started with ``tag`` in its environment."""

    @abstractmethod
    def variable(self, pid: int, name: str) -> str:
        """Return the value of a variable with which a process was started; empty without it."""

    @abstractmethod
    def describe(self, pid: int) -> str:
        """Return a process's command line as human-readable text."""

    @abstractmethod
    def inspect(self, mains: Sequence[int], tag: str) -> list[ProcessInfo]:
        """Return facts about main processes, their descendants, and tagged processes that have escaped from them."""


class Files(ABC):
    """The files, directories and links on the machine, and the software among them."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts

    @abstractmethod
    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file, and make its missing parent directories."""

    @abstractmethod
    def link(self, path: str, target: str) -> None:
        """Make a symbolic link and its missing parent directories; a file or link at that path is replaced."""

    @abstractmethod
    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Make a directory of just this mode and its missing parent directories; an existing one is left alone."""

    @abstractmethod
    def provide(
        self, place: str, directories: Sequence[StateDirectory], files: Sequence[StateFile], obsolete: Sequence[str]
    ) -> None:
        """Make directories and files below a directory, each with its owner and mode, and remove obsolete files.

        Those that exist get owner, mode and text anew. No link is followed there. Raises ``OSError``, and
        :class:`~pytest_nixproc.errors.MachineError` for an owner that the machine does not have.
        """

    @abstractmethod
    def read(self, path: str, start: int = 0) -> bytes | None:
        """Return a file's content from byte ``start`` on; None without such a file."""

    @abstractmethod
    def real_paths(self, paths: Iterable[str]) -> dict[str, str]:
        """Return paths as the kernel shows them of processes: without symbolic links, by the paths that were given."""

    @abstractmethod
    def execution_problem(self, path: str) -> str:
        """Return why the kernel would not execute a program, or an empty text; also where that cannot be told."""

    @abstractmethod
    def size(self, path: str) -> int:
        """Return a file's size in bytes; 0 without such a file."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tell whether there is a file, directory or socket of that path."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file or a whole directory; one that does not exist is no error.

        What is mounted in a directory is somebody else's. It stays, and so does what cannot be removed: raises
        :class:`~pytest_nixproc.errors.Unremovable`, which names both.
        """

    @abstractmethod
    def pack(self, path: str) -> bytes:
        """Return a file or directory as an archive; raises :class:`~pytest_nixproc.errors.MachineError`."""

    @abstractmethod
    def unpack(self, packed: bytes, path: str) -> None:
        """Unpack an archive of :meth:`pack` at a path; raises :class:`~pytest_nixproc.errors.MachineError`."""

    @abstractmethod
    def modified_since(self, paths: Sequence[str], reference: str) -> list[str]:
        """Return which of the given files and directories have changed since ``reference`` was modified."""

    @abstractmethod
    def created_since(self, directories: Sequence[str], named: Sequence[str], reference: str) -> list[tuple[str, int]]:
        """Return (path, uid) of entries created in some directories since ``reference`` was modified.

        Directories in them are looked into as well. ``~`` stands for the caller's home. Files that were there before
        are looked at only when they are ``named``.
        """

    def which(self, name: str) -> str:
        """Return the path of one of the machine's own programs; empty without one of that name."""
        return next(filter(self.exists, (f"{directory}/{name}" for directory in self._facts().base_path)), "")

    @abstractmethod
    def software(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the directories and files that hold ``paths`` and everything that programs among them load.

        What the machine needs to run anything at all is part of it; paths that do not exist are left out.
        """

    def show(self, paths: Iterable[str]) -> None:  # noqa: B027 - most are this host, or see all of it
        """Make paths of this host, and all that their programs load, visible on the machine; absent ones are left out.

        Raises :class:`~pytest_nixproc.errors.MachineError`.
        """


class Network(ABC):
    """The network of the machine: ports and sockets that are listened on, as seen there."""

    @abstractmethod
    def listeners(self, likely: Iterable[int] = (), wanted: Container[int] | None = None) -> list[Listener]:
        """Return all listening sockets of the machine; ``likely`` processes are looked at before all others.

        Those of UDP are among them while they are unconnected, which clients' are, too, for a moment.

        Given ``wanted`` ports, the holders of others may be left out, unless they are likely.
        """

    @abstractmethod
    def open_ports(self) -> Mapping[int, Sequence[str]] | None:
        """Return the TCP ports that are listened on, each with the addresses at which the machine reaches it itself.

        Asked for often; None where that cannot be told at once.
        """

    @abstractmethod
    def port_is_free(self, port: int, host: str = "") -> bool:
        """Tell whether a server could listen on the port now, on an address, or on any of them."""

    @abstractmethod
    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Connect to a host and port, or to a Unix socket's path; return why that fails, or an empty text.

        ``localhost`` is either loopback address.
        """

    @abstractmethod
    def is_shared_with(self, pid: int) -> bool:
        """Tell whether a process uses the machine's network, not one of its own."""


class AccountDatabase(ABC):
    """The users and groups that the machine has, and the accounts that processes run as."""

    @abstractmethod
    def named(self, users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
        """Look accounts up by their names; raises :class:`~pytest_nixproc.errors.MachineError` if it cannot."""

    @abstractmethod
    def of(self, pid: int) -> tuple[int, int] | None:
        """Return the effective user and group that a process runs as; None where that cannot be seen."""


class Lifecycle(ABC):
    """The lifetime of the machine, and the care for its processes when this process ends."""

    @property
    def is_up(self) -> bool:
        """Tell whether the machine runs."""
        return True

    @property
    def boot_count(self) -> int:
        """The number of times that we have booted the machine; when it changes, all earlier processes are gone."""
        return 0

    @property
    def is_released(self) -> bool:
        """Tell whether the machine's processes live on after :meth:`close`."""
        return False

    @property
    def failure(self) -> MachineError | None:
        """The error that says how the machine was lost; None while it is up, and when a test has ended it."""
        return None

    def destroy(self) -> None:  # noqa: B027 - only machines of their own have an end
        """End the machine at once with everything on it; harmless when it is down already."""

    def warm_up(self, interpreter: Sequence[str], module: str) -> None:  # noqa: B027 - it only saves time
        """Have a Python module imported, for commands that are soon to be forked from a process that has it."""

    @abstractmethod
    def prepare(self) -> None:
        """Begin to get ready for processes, without waiting for it; harmless when called again."""

    @abstractmethod
    def close(self) -> None:
        """End the processes that the machine itself keeps running, and all that still run below them."""

    @abstractmethod
    def release(self) -> None:
        """Let the processes live on after :meth:`close`."""

    @abstractmethod
    def guard(self, root: str, recovery: Sequence[str], seconds: float = 0) -> int | None:
        """Have a command run if this process ends before :meth:`unguard`; return the pid of the one that will run it.

        ``seconds`` is how long the programs may take to stop that it ends; a later call for the root says it anew.
        Raises :class:`~pytest_nixproc.errors.MachineError` when nobody can be had for that.
        """

    @abstractmethod
    def unguard(self, root: str) -> None:
        """Withdraw the request of :meth:`guard`."""
