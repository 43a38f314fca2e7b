"""Processes of this machine: started by the guardian, looked at through pidfds and ``/proc``."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from threading import RLock
from typing import IO, Final

from pytest_nixproc.machines import process_table, pursuit
from pytest_nixproc.machines.forks import renew_after_fork
from pytest_nixproc.machines.guardian.connection import GuardianConnection
from pytest_nixproc.machines.host.guardian import OwnGuardian
from pytest_nixproc.machines.parts import Processes
from pytest_nixproc.machines.process_info import inspect
from pytest_nixproc.machines.shielding import unhurried
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import ProcessInfo
from pytest_nixproc.values.masking import Secrets
from pytest_nixproc.values.tags import SECRETS

FREEZE_SECONDS: Final = 2.0


class HostProcesses(Processes):
    """The processes of this machine, as far as the calling user may see and signal them."""

    def __init__(self, guardian: OwnGuardian) -> None:
        self._guardian = guardian
        self._pidfds: dict[int, int] = {}
        self._watching = RLock()
        """Held while pidfds are opened, used and closed: any thread may ask."""

        renew_after_fork(self)

    def renew(self) -> None:
        """Make locks anew in a forked child: threads that it does not have may hold them."""
        self._watching = RLock()

    def forget(self) -> None:
        """Close the pidfds."""
        with self._watching:
            for descriptor in self._pidfds.values():
                os.close(descriptor)
            self._pidfds.clear()

    def spawn(self, command: Spawn) -> int:
        """Start a process below the guardian."""
        return self._spawn([command])[0]

    def _spawn(self, commands: Sequence[Spawn]) -> list[int]:
        """Start processes, and wait until it is known which: one that is given up may open our output meanwhile."""
        with unhurried():
            return self._guardian.connection.spawn(commands)

    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands side by side until all have ended or the deadline is reached."""
        pids = self._spawn(commands)
        for pid in pids:
            await_exit(self._guardian.connection, pid, deadline)
        return [self._guardian.connection.exited.get(pid) for pid in pids]

    def capture(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command with its output in a temporary file; kill its whole session at the deadline."""
        with nameless_file() as (output, path):
            pid = self.spawn(Spawn(command.argv, command.environment, path))
            status = await_exit(self._guardian.connection, pid, deadline)
            if status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            return status, output.read().decode(errors="replace")

    def exit_status(self, pid: int) -> int | None:
        """Return the exit status of a process that the guardian has reported; None without one."""
        return self._guardian.connection.exited.get(pid)

    def sync_exits(self) -> None:
        """Have the guardian reap and report what has exited by now; it may notice an exit a moment after us."""
        self._guardian.connection.synchronize()

    def ended(self, pids: Iterable[int]) -> set[int]:
        """Return which of ``pids`` have ended, by one system call where pidfds exist (pidfd_open(2))."""
        with self._watching:
            poller = select.poll()
            by_descriptor: dict[int, int] = {}
            gone = set()
            exited = running.exited if (running := self._guardian.running) else {}
            for pid in pids:
                was_reported = pid not in self._pidfds and pid in exited
                if (descriptor := self._pidfd(pid)) is not None:
                    by_descriptor[descriptor] = pid
                    poller.register(descriptor, select.POLLIN)
                elif not process_table.is_alive(pid):
                    gone.add(pid)
                    continue
                if was_reported:
                    # Whose end was reported is buried: this is another process, and its own end is not known.
                    exited.pop(pid, None)
            for descriptor, _ in poller.poll(0):
                gone.add(by_descriptor[descriptor])
                os.close(self._pidfds.pop(by_descriptor[descriptor]))
            return gone

    def ending(self, pids: Iterable[int]) -> set[int]:
        """Return the processes without memory: they give that up first, and their connections later (exit(2))."""
        return {pid for pid in pids if not process_table.has_memory(pid)}

    def _pidfd(self, pid: int) -> int | None:
        if pid not in self._pidfds and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._pidfds[pid] = os.pidfd_open(pid)
        return self._pidfds.get(pid)

    def start_time(self, pid: int) -> str:
        """Return when a process started, where the system has ``/proc``; else an empty text."""
        return process_table.start_time(pid)

    def identity(self, pid: int) -> str:
        """Return the start time of a process, which distinguishes it from later processes that reuse its pid."""
        return process_table.identity_of(pid)

    def signal(self, pid: int, number: int) -> None:
        """Send a signal, through the pidfd where there is one: it cannot reach a reused pid."""
        with self._watching, contextlib.suppress(ProcessLookupError):
            if (descriptor := self._pidfds.get(pid)) is not None:
                signal.pidfd_send_signal(descriptor, number)
            else:
                os.kill(pid, number)

    def parents(self) -> dict[int, int]:
        """Return the parent of every process."""
        return process_table.parents()

    def strays(self, tag: str) -> list[int]:
        """Return the guardian's descendants with a tag, and untagged orphans that are not below a watched process."""
        if self._guardian.running is None:
            return []
        with self._watching:
            watched = set(self._pidfds)
        guardian = self._guardian.connection
        found = guardian.strays(tag, sorted(watched - self.ended(watched)))
        return sorted({*found, *self.tagged(tag)}) if guardian.is_successor else found

    def tagged(self, tag: str) -> list[int]:
        """Return the processes that carry a tag, of all whose environments we may read."""
        return sorted(pid for pid in pursuit.carriers(tag.encode()) if process_table.is_alive(pid))

    def freeze(self, tag: str) -> list[int]:
        """Stop the processes that carry a tag, and those that they have become meanwhile."""
        return sorted(pursuit.freeze(tag.encode(), FREEZE_SECONDS))

    def has_tag(self, pid: int, tag: str) -> bool:
        """Tell whether a process was started with ``tag`` in its environment."""
        return tag.encode() in process_table.environment_of(pid).split(b"\0")

    def variable(self, pid: int, name: str) -> str:
        """Return the value of a variable in the initial environment of a process."""
        return os.fsdecode(process_table.variables_of(pid).get(os.fsencode(name), b""))

    def describe(self, pid: int) -> str:
        """Return a process's command line as human-readable text, without the values that its environment calls secret.

        Programs may be given them as arguments, too; and whoever takes down what a crash has left has no model.
        """
        variables = process_table.variables_of(pid)
        names = variables.get(os.fsencode(SECRETS), b"").split(b",")
        secret = Secrets(frozenset(variables[name].decode(errors="replace") for name in names if name in variables))
        return secret.masked(process_table.command_line(pid))

    def inspect(self, mains: Sequence[int], tag: str) -> list[ProcessInfo]:
        """Return facts about processes from ``/proc``; none on systems without it."""
        return inspect(mains, self._guardian.pids, tag) if process_table.HAS_PROC else []


def await_exit(guardian: GuardianConnection, pid: int, deadline: Deadline) -> int | None:
    """Wait until the guardian reports the end of a process; None when it has not before the deadline."""
    while (status := guardian.exited.get(pid)) is None and (remaining := deadline.remaining):
        guardian.listen(remaining, lambda: pid in guardian.exited)
    return status


@contextlib.contextmanager
def nameless_file() -> Iterator[tuple[IO[bytes], str]]:
    """Make a file that vanishes however this process ends; yield it with a path for other processes to open."""
    if sys.platform == "linux":
        with open(os.memfd_create("output"), "rb") as file:
            yield file, f"/proc/{os.getpid()}/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("rb") as named:
            yield named, named.name
