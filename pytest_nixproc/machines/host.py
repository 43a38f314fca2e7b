"""The machine that the tests themselves run on."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import IO, ClassVar, Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines import archive, process_table
from pytest_nixproc.machines.api import Account, Accounts, Facts, Listener, Machine, Place, Sight, Spawn
from pytest_nixproc.machines.connection import PACKAGE_ROOT, GuardianConnection
from pytest_nixproc.machines.listeners import listeners, listeners_by_netstat, listeners_by_psutil, listening_sockets
from pytest_nixproc.machines.sights import appeared, newer, sights
from pytest_nixproc.machines.software import Software
from pytest_nixproc.machines.waiting import Deadline

CONNECT_SECONDS: Final = 1.0
NOT_THERE: Final = (FileNotFoundError, NotADirectoryError, ProcessLookupError)
"""What the system says of a path that leads nowhere; the last, of a process that ends while its facts are read."""


class Host(Machine):
    """This machine, as the calling user, through one guardian per test process."""

    name: ClassVar[str] = "host"

    def __init__(self, place: Place | None = None) -> None:
        super().__init__(place)
        self._guardian: GuardianConnection | None = None
        self._pidfds: dict[int, int] = {}
        self._software = Software()
        self._older_sockets: frozenset[int] = frozenset()
        """Sockets that listened before the guardian had started anything."""

    @cached_property
    def facts(self) -> Facts:
        """What generated files may rely on here."""
        usual = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin")
        present = tuple(path for path in usual if os.path.isdir(path))
        return Facts(
            python=sys.executable,
            package_root=PACKAGE_ROOT,
            nice=shutil.which("nice") or Facts.nice,
            setpriv=shutil.which("setpriv") or "",
            base_path=present,
            account=own_account(),
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            first_unprivileged_port=first_unprivileged_port(),
            client_ports=client_ports(),
        )

    @property
    def guardian(self) -> GuardianConnection:
        """The guardian, started when it is needed first."""
        if self._guardian is None:
            self._guardian = GuardianConnection.start()
            with contextlib.suppress(OSError):
                self._older_sockets = frozenset(listening_sockets())
        return self._guardian

    def prepare(self) -> None:
        """Start the guardian; it gets ready while the deployment is being planned."""
        _ = self.guardian

    def close(self) -> None:
        """End the guardian, and with it every process below it."""
        for descriptor in self._pidfds.values():
            os.close(descriptor)
        self._pidfds.clear()
        if self._guardian is not None:
            self._guardian.close()
            self._guardian = None

    def release(self) -> None:
        """Let the processes live on after :meth:`close`."""
        self.guardian.release()

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep, unless the guardian has something to report."""
        if self._guardian is None:
            time.sleep(seconds)
        else:
            self._guardian.listen(seconds)

    def spawn(self, command: Spawn) -> int:
        """Start a process below the guardian."""
        return self.guardian.spawn([command])[0]

    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands side by side until all have ended or the deadline is reached."""
        pids = self.guardian.spawn(commands)
        for pid in pids:
            self._await_exit(pid, deadline)
        return [self.guardian.exited.get(pid) for pid in pids]

    def _await_exit(self, pid: int, deadline: Deadline) -> int | None:
        """Wait until the guardian reports the end of a process; None when it has not before the deadline."""
        while (status := self.guardian.exited.get(pid)) is None and (remaining := deadline.remaining):
            self.guardian.listen(remaining)
        return status

    def capture(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command with its output in a temporary file; kill its whole session at the deadline."""
        with nameless_file() as (output, path):
            pid = self.spawn(Spawn(command.argv, command.environment, path))
            status = self._await_exit(pid, deadline)
            if status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            return status, output.read().decode(errors="replace")

    def exit_status(self, pid: int) -> int | None:
        """Return what the guardian reported about the end of a process."""
        return self.guardian.exited.get(pid)

    def catch_up(self) -> None:
        """Have the guardian report the ends that it may see a moment after us."""
        self.guardian.synchronize()

    def ended(self, pids: Iterable[int]) -> set[int]:
        """Look at all processes in one system call, where pidfds exist (pidfd_open(2))."""
        poller = select.poll()
        by_descriptor: dict[int, int] = {}
        gone = set()
        for pid in pids:
            if (descriptor := self._pidfd(pid)) is not None:
                by_descriptor[descriptor] = pid
                poller.register(descriptor, select.POLLIN)
            elif not process_table.is_alive(pid):
                gone.add(pid)
        for descriptor, _ in poller.poll(0):
            gone.add(by_descriptor[descriptor])
            os.close(self._pidfds.pop(by_descriptor[descriptor]))
        return gone

    def _pidfd(self, pid: int) -> int | None:
        if pid not in self._pidfds and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._pidfds[pid] = os.pidfd_open(pid)
        return self._pidfds.get(pid)

    def start_time(self, pid: int) -> str:
        """Read it, where the system has ``/proc``."""
        return process_table.start_time(pid)

    def identity(self, pid: int) -> str:
        """Return its start time."""
        return process_table.identity_of(pid)

    def signal(self, pid: int, number: int) -> None:
        """Send a signal, through the pidfd where there is one: it cannot reach a reused pid."""
        with contextlib.suppress(ProcessLookupError):
            if (descriptor := self._pidfds.get(pid)) is not None:
                signal.pidfd_send_signal(descriptor, number)
            else:
                os.kill(pid, number)

    def parents(self) -> dict[int, int]:
        """Return the parent of every process."""
        return process_table.parents()

    def guard(self, root: str, recovery: Sequence[str]) -> int | None:
        """Give a deployment to the guardian."""
        self.guardian.guard(root, recovery)
        return self.guardian.process.pid

    def unguard(self, root: str) -> None:
        """Take a deployment back from the guardian."""
        self.guardian.unguard(root)

    def strays(self, tag: str) -> list[int]:
        """Return what the guardian still has below it with this tag, or without any; what is watched is spared."""
        if self._guardian is None:
            return []
        watched = set(self._pidfds)
        return self._guardian.strays(tag, sorted(watched - self.ended(watched)))

    def tagged(self, tag: str) -> list[int]:
        """Look through the environments of all processes that we may look at."""
        return [pid for pid in process_table.parents() if self.has_tag(pid, tag) and process_table.is_alive(pid)]

    def shares_network(self, pid: int) -> bool:
        """Compare network namespaces (namespaces(7)); where there are none, all share one."""
        try:
            return os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
        except OSError:
            return True

    def sights(self, mains: Sequence[int], tag: str) -> list[Sight]:
        """Look into ``/proc``; other systems show nothing of this to everybody."""
        if not process_table.HAS_PROC:
            return []
        return sights(mains, [self._guardian.process.pid] if self._guardian else [], tag)

    def newer(self, paths: Sequence[str], reference: str) -> list[str]:
        """Compare times of modification, and of changes of the inode."""
        return newer(paths, reference)

    def appeared(self, directories: Sequence[str], named: Sequence[str], reference: str) -> list[tuple[str, int]]:
        """Look into those directories that have changed."""
        return list(appeared(directories, named, reference))

    def describe(self, pid: int) -> str:
        """Return a process's command line for people."""
        return process_table.command_line(pid)

    def has_tag(self, pid: int, tag: str) -> bool:
        """Tell whether a process was started with ``tag`` in its environment."""
        return tag.encode() in process_table.environment_of(pid).split(b"\0")

    def accounts(self, users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
        """Ask the C library, which asks what getent(1) asks, and needs no process."""
        found: dict[str, Account] = {}
        members: dict[str, tuple[str, ...]] = {}
        for name in users:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                others = (number for number in os.getgrouplist(name, entry.pw_gid) if number != entry.pw_gid)
                members[name] = tuple(map(group_name, others))
                found[name] = Account(name, entry.pw_uid, group_name(entry.pw_gid), entry.pw_gid)
        mentioned = {*groups, *(account.group for account in found.values()), *chain.from_iterable(members.values())}
        numbers = {}
        for name in mentioned:
            with contextlib.suppress(KeyError):
                numbers[name] = grp.getgrnam(name).gr_gid
        return Accounts(found, numbers, members)

    def account_of(self, pid: int) -> tuple[int, int] | None:
        """Read it, or have psutil find it out where the system has no ``/proc``."""
        if process_table.HAS_PROC:
            return super().account_of(pid)
        import psutil

        try:
            process = psutil.Process(pid)
            return process.uids().effective, process.gids().effective
        except psutil.Error:
            return None

    def listeners(self, likely: Iterable[int] = (), wanted: Container[int] | None = None) -> list[Listener]:
        """Ask the kernel for listening sockets alone, where it can be asked; else for all."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                likely = list(likely)
                starter = [self._guardian.process.pid] if self._guardian else []
                return listeners(likely, starter, self._strange_sockets(likely), wanted)
        platform: str = sys.platform
        return listeners_by_netstat() if platform == "cygwin" else listeners_by_psutil()

    def _strange_sockets(self, likely: Sequence[int]) -> frozenset[int]:
        """Return sockets that no offspring of ours can hold; none when ``likely`` processes are another guardian's."""
        if self._guardian is None or (likely and ticks(likely[0]) < ticks(self._guardian.process.pid)):
            return frozenset()
        return self._older_sockets

    def port_is_free(self, port: int) -> bool:
        """Try to bind the port on the wildcard addresses, as servers do (with SO_REUSEADDR)."""
        return all(can_bind(family, address, port) for family, address in WILDCARDS)

    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Connect and close in order: a reset would spare a TIME_WAIT entry, but many servers log it as an error."""
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_SECONDS)
            try:
                probe.connect(address)
            except OSError as error:
                return error.strerror or str(error)
        return ""

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file, with the directories it needs."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb", 0) as file:
            left = memoryview(os.fsencode(content))
            while left:
                left = left[file.write(left) :]

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, with the directories it needs."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.symlink(target, path)

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Make a directory, with the directories it needs; one that exists is left alone."""
        os.makedirs(path, mode, exist_ok=True)

    def read(self, path: str, start: int = 0) -> bytes | None:
        """Return a file's content from byte ``start`` on; None without such a file."""
        try:
            return process_table.read_file(path, start)
        except NOT_THERE:
            return None

    def size(self, path: str) -> int:
        """Return a file's size in bytes; 0 without such a file."""
        try:
            return os.stat(path).st_size
        except NOT_THERE:
            return 0

    def exists(self, path: str) -> bool:
        """Tell whether there is a file, directory or socket of that path."""
        return os.path.lexists(path)

    def software(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Follow symbolic links, interpreters and shared libraries."""
        return self._software.needed_by(paths)

    def remove(self, path: str) -> None:
        """Remove a file or a whole directory; one that does not exist is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise MachineError(f"cannot remove {path}: {error.strerror}") from error
            shutil.rmtree(path)

    def pack(self, path: str) -> bytes:
        """Pack a file or directory."""
        return archive.pack(path)

    def unpack(self, packed: bytes, path: str) -> None:
        """Unpack an archive."""
        archive.unpack(packed, path)


@contextlib.contextmanager
def nameless_file() -> Iterator[tuple[IO[bytes], str]]:
    """Make a file that is left nowhere, however this process ends; yield it with a path for other processes to open."""
    if sys.platform == "linux":
        with open(os.memfd_create("output"), "rb") as file:
            yield file, f"/proc/{os.getpid()}/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("rb") as named:
            yield named, named.name


def ticks(pid: int) -> int:
    """Return when a process started; 0 for one that is gone."""
    return int(process_table.start_time(pid) or 0)


WILDCARDS: Final = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104 - bound for a moment, never listened on


def can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    """Tell whether a server could bind the port; a family that the machine lacks is no obstacle."""
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return True
    with probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def group_name(number: int) -> str:
    """Return a group's name; its number, where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def first_unprivileged_port() -> int:
    """Ask the kernel; where it does not say, it is the traditional one."""
    text = process_table.read_facts("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return int(text) if text.strip() else Facts.first_unprivileged_port


def client_ports() -> range:
    """Ask the kernel which ports it gives to clients; where it does not say, they are Linux's usual ones."""
    bounds = process_table.read_facts("/proc/sys/net/ipv4/ip_local_port_range").split()
    return range(int(bounds[0]), int(bounds[1]) + 1) if len(bounds) == 2 else Facts.client_ports


def own_account() -> Account:
    """Return who we are; numbers stand for the names of accounts that the system does not know."""
    uid, gid = os.geteuid(), os.getegid()
    with contextlib.suppress(KeyError):
        return Account(pwd.getpwuid(uid).pw_name, uid, grp.getgrgid(gid).gr_name, gid)
    return Account(str(uid), uid, str(gid), gid)


@hookimpl
def nixproc_machines() -> list[type[Machine]]:
    """Offer this machine."""
    return [Host]
