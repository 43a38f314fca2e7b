"""A machine that is seen through an agent on it: each verb is a question to the agent."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Container, Iterable, Sequence
from typing import Any, cast

from pytest_nixproc.machines.api import Listener, Machine, Sight, Spawn
from pytest_nixproc.machines.waiting import Deadline


class Remote(Machine):
    """What all such machines have in common; pids are the machine's own numbers."""

    @abstractmethod
    def ask(self, verb: str, *arguments: object) -> Any:
        """Have the agent carry a verb out; raises :class:`~pytest_nixproc.errors.MachineError` when it cannot."""

    def now(self) -> float:
        """Return monotonic seconds: the clock of the one kernel."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep there, so that the end of a process there is noticed."""
        self.ask("pause", seconds)

    def prepare(self) -> None:
        """Start what starts processes there."""
        self.ask("prepare")

    def spawn(self, command: Spawn) -> int:
        """Start a process there."""
        return cast("int", self.ask("spawn", command))

    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands there."""
        return cast("list[int | None]", self.ask("run", list(commands), deadline.remaining))

    def capture(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command there."""
        return cast("tuple[int | None, str]", self.ask("capture", command, deadline.remaining))

    def exit_status(self, pid: int) -> int | None:
        """Return what was seen there of the end of a process."""
        return cast("int | None", self.ask("exit_status", pid))

    def catch_up(self) -> None:
        """Have all ends noticed there."""
        self.ask("catch_up")

    def ended(self, pids: Iterable[int]) -> set[int]:
        """Look at processes there."""
        wanted = list(pids)
        return cast("set[int]", self.ask("ended", wanted)) if wanted else set()

    def start_time(self, pid: int) -> str:
        """Return when a process there started."""
        return cast("str", self.ask("start_time", pid))

    def identity(self, pid: int) -> str:
        """Return what identifies a process there."""
        return cast("str", self.ask("identity", pid))

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process there."""
        self.ask("signal", pid, number)

    def parents(self) -> dict[int, int]:
        """Return the parent of every process there."""
        return cast("dict[int, int]", self.ask("parents"))

    def strays(self, tag: str) -> list[int]:
        """Return all processes there that carry a tag: the machine has only ours, whoever started them."""
        return cast("list[int]", self.ask("strays", tag))

    def tagged(self, tag: str) -> list[int]:
        """Return the processes there that carry a tag."""
        return cast("list[int]", self.ask("tagged", tag))

    def shares_network(self, pid: int) -> bool:
        """Tell whether a process there uses the machine's network."""
        return cast("bool", self.ask("shares_network", pid))

    def sights(self, mains: Sequence[int], tag: str) -> list[Sight]:
        """Look at processes there."""
        return cast("list[Sight]", self.ask("sights", list(mains), tag))

    def newer(self, paths: Sequence[str], reference: str) -> list[str]:
        """Compare files there."""
        return cast("list[str]", self.ask("newer", list(paths), reference))

    def appeared(self, directories: Sequence[str], named: Sequence[str], reference: str) -> list[tuple[str, int]]:
        """Look into directories there."""
        return cast("list[tuple[str, int]]", self.ask("appeared", list(directories), list(named), reference))

    def describe(self, pid: int) -> str:
        """Return the command line of a process there."""
        return cast("str", self.ask("describe", pid))

    def has_tag(self, pid: int, tag: str) -> bool:
        """Tell whether a process there carries a tag."""
        return cast("bool", self.ask("has_tag", pid, tag))

    def listeners(self, likely: Iterable[int] = (), wanted: Container[int] | None = None) -> list[Listener]:
        """Return the listening sockets of the machine's network."""
        return cast("list[Listener]", self.ask("listeners", list(likely), wanted))

    def port_is_free(self, port: int) -> bool:
        """Tell whether a server there could listen on a port."""
        return cast("bool", self.ask("port_is_free", port))

    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Connect from there."""
        return cast("str", self.ask("connection_problem", address))

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file there."""
        self.ask("write", path, content, mode)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link there."""
        self.ask("link", path, target)

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Make a directory there."""
        self.ask("make_directory", path, mode)

    def read(self, path: str, start: int = 0) -> bytes | None:
        """Read a file there."""
        return cast("bytes | None", self.ask("read", path, start))

    def size(self, path: str) -> int:
        """Return the size of a file there."""
        return cast("int", self.ask("size", path))

    def exists(self, path: str) -> bool:
        """Tell whether a path exists there."""
        return cast("bool", self.ask("exists", path))

    def software(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return what programs there load."""
        return cast("tuple[str, ...]", self.ask("software", list(paths)))

    def remove(self, path: str) -> None:
        """Remove a file or directory there."""
        self.ask("remove", path)

    def pack(self, path: str) -> bytes:
        """Pack a file or directory there."""
        return cast("bytes", self.ask("pack", path))

    def unpack(self, packed: bytes, path: str) -> None:
        """Unpack an archive there."""
        self.ask("unpack", packed, path)
