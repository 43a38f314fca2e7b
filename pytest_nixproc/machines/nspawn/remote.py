"""The parts of a machine that is seen through an agent on it: each verb is a question to the agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from pytest_nixproc.machines.parts import Files, Network, Processes
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import Facts, Listener, ProcessInfo
from pytest_nixproc.values.state_files import StateDirectory, StateFile


class Ask(Protocol):
    """A function that has the agent carry out a verb of a part of its machine, such as ``files.read``."""

    def __call__(self, verb: str, *arguments: object) -> Any:
        """Return the verb's result; raises :class:`~pytest_nixproc.errors.MachineError` when the agent cannot."""


class RemoteClock:
    """The clock of the kernel, which this host and the machine share."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep on the machine, so that the end of a process of its own is noticed."""
        self._ask("clock.pause", seconds)


class RemoteProcesses(Processes):
    """The processes on the machine; ``beside_tests`` are those of the machine that the tests run on."""

    def __init__(self, ask: Ask, beside_tests: Processes) -> None:
        self._ask = ask
        self._beside_tests = beside_tests

    def spawn(self, command: Spawn) -> int:
        """Start a process on the machine."""
        return cast("int", self._ask("processes.spawn", command))

    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands on the machine."""
        return cast("list[int | None]", self._ask("processes.run", list(commands), deadline.remaining))

    def capture(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command on the machine."""
        return cast("tuple[int | None, str]", self._ask("processes.capture", command, deadline.remaining))

    def capture_beside_tests(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command where the tests run."""
        return self._beside_tests.capture(command, deadline)

    def exit_status(self, pid: int) -> int | None:
        """Return the exit status of a process, as the machine saw it."""
        return cast("int | None", self._ask("processes.exit_status", pid))

    def sync_exits(self) -> None:
        """Have the machine notice the ends of all processes that have ended."""
        self._ask("processes.sync_exits")

    def ended(self, pids: Iterable[int]) -> set[int]:
        """Return which of the given processes on the machine have ended."""
        wanted = list(pids)
        return cast("set[int]", self._ask("processes.ended", wanted)) if wanted else set()

    def ending(self, pids: Iterable[int]) -> set[int]:
        """Return which of the given processes on the machine have ended or begun to."""
        wanted = list(pids)
        return cast("set[int]", self._ask("processes.ending", wanted)) if wanted else set()

    def start_time(self, pid: int) -> str:
        """Return when a process on the machine started."""
        return cast("str", self._ask("processes.start_time", pid))

    def identity(self, pid: int) -> str:
        """Return a text that identifies a process on the machine."""
        return cast("str", self._ask("processes.identity", pid))

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process on the machine."""
        self._ask("processes.signal", pid, number)

    def parents(self) -> dict[int, int]:
        """Return the parent of every process on the machine."""
        return cast("dict[int, int]", self._ask("processes.parents"))

    def strays(self, tag: str) -> list[int]:
        """Return the processes that are left of a deployment on the machine, started by us or by its systemd."""
        return cast("list[int]", self._ask("processes.strays", tag))

    def tagged(self, tag: str) -> list[int]:
        """Return the processes on the machine that carry a tag."""
        return cast("list[int]", self._ask("processes.tagged", tag))

    def freeze(self, tag: str) -> list[int]:
        """Stop the processes on the machine that carry a tag."""
        return cast("list[int]", self._ask("processes.freeze", tag))

    def has_tag(self, pid: int, tag: str) -> bool:
        """Tell whether a process on the machine carries a tag."""
        return cast("bool", self._ask("processes.has_tag", pid, tag))

    def variable(self, pid: int, name: str) -> str:
        """Return the value of a variable with which a process on the machine was started."""
        return cast("str", self._ask("processes.variable", pid, name))

    def describe(self, pid: int) -> str:
        """Return the command line of a process on the machine."""
        return cast("str", self._ask("processes.describe", pid))

    def inspect(self, mains: Sequence[int], tag: str) -> list[ProcessInfo]:
        """Return facts about processes on the machine."""
        return cast("list[ProcessInfo]", self._ask("processes.inspect", list(mains), tag))


class RemoteFiles(Files):
    """The files on the machine."""

    def __init__(self, ask: Ask, facts: Callable[[], Facts]) -> None:
        super().__init__(facts)
        self._ask = ask

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file on the machine."""
        self._ask("files.write", path, content, mode)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link on the machine."""
        self._ask("files.link", path, target)

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Make a directory on the machine."""
        self._ask("files.make_directory", path, mode)

    def provide(
        self, place: str, directories: Sequence[StateDirectory], files: Sequence[StateFile], obsolete: Sequence[str]
    ) -> None:
        """Make directories and files on the machine, and remove obsolete files."""
        self._ask("files.provide", place, list(directories), list(files), list(obsolete))

    def read(self, path: str, start: int = 0) -> bytes | None:
        """Return the content of a file on the machine."""
        return cast("bytes | None", self._ask("files.read", path, start))

    def real_paths(self, paths: Iterable[str]) -> dict[str, str]:
        """Return paths without the symbolic links of the machine."""
        return cast("dict[str, str]", self._ask("files.real_paths", list(paths)))

    def execution_problem(self, path: str) -> str:
        """Return why a program cannot be executed on the machine."""
        return cast("str", self._ask("files.execution_problem", path))

    def size(self, path: str) -> int:
        """Return the size of a file on the machine."""
        return cast("int", self._ask("files.size", path))

    def exists(self, path: str) -> bool:
        """Tell whether a path exists on the machine."""
        return cast("bool", self._ask("files.exists", path))

    def remove(self, path: str) -> None:
        """Remove a file or directory on the machine."""
        self._ask("files.remove", path)

    def pack(self, path: str) -> bytes:
        """Pack a file or directory of the machine."""
        return cast("bytes", self._ask("files.pack", path))

    def unpack(self, packed: bytes, path: str) -> None:
        """Unpack an archive on the machine."""
        self._ask("files.unpack", packed, path)

    def modified_since(self, paths: Sequence[str], reference: str) -> list[str]:
        """Return the paths on the machine that have changed since ``reference`` was modified."""
        return cast("list[str]", self._ask("files.modified_since", list(paths), reference))

    def created_since(self, directories: Sequence[str], named: Sequence[str], reference: str) -> list[tuple[str, int]]:
        """Return (path, uid) of entries created on the machine since ``reference`` was modified."""
        found = self._ask("files.created_since", list(directories), list(named), reference)
        return cast("list[tuple[str, int]]", found)

    def software(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the directories and files of the software that programs on the machine load."""
        return cast("tuple[str, ...]", self._ask("files.software", list(paths)))


class RemoteNetwork(Network):
    """The network of the machine, as it is seen there."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def listeners(self, likely: Iterable[int] = (), wanted: Container[int] | None = None) -> list[Listener]:
        """Return the listening sockets of the machine's network."""
        return cast("list[Listener]", self._ask("network.listeners", list(likely), wanted))

    def open_ports(self) -> Mapping[int, Sequence[str]] | None:
        """Return the ports that are listened on, with the addresses at which they are reached there."""
        return cast("Mapping[int, Sequence[str]] | None", self._ask("network.open_ports"))

    def port_is_free(self, port: int, host: str = "") -> bool:
        """Tell whether a server on the machine could listen on a port."""
        return cast("bool", self._ask("network.port_is_free", port, host))

    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Connect from the machine; return why that fails, or an empty text."""
        return cast("str", self._ask("network.connection_problem", address))

    def is_shared_with(self, pid: int) -> bool:
        """Tell whether a process on the machine uses the machine's network."""
        return cast("bool", self._ask("network.is_shared_with", pid))
