"""A throwaway machine: a container of systemd-nspawn that boots systemd from this host's own ``/usr``.

Its root is a tmpfs (``--volatile=yes``): accounts, units and ``/var`` are its own and vanish with it. ``/usr`` is the
host's, read-only; other top-level directories with software can be seen, and written without the host noticing. All
that the two share is the directory that the machine is given. systemd-nspawn(1) explains the options.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

from pytest_nixproc.errors import MachineError, WaitTimeout
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.agent import BOOT as AGENT
from pytest_nixproc.machines.agent import AgentConnection
from pytest_nixproc.machines.api import Facts, Machine, Place, Spawn, describe_status
from pytest_nixproc.machines.connection import PACKAGE_ROOT
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import descendants
from pytest_nixproc.machines.remote import Remote
from pytest_nixproc.machines.software import ESSENTIAL
from pytest_nixproc.machines.waiting import Deadline, wait_until

BOOT_SECONDS: Final = 60.0
END_SECONDS: Final = 10.0

DIED: Final = "has died"
CONSOLE_LINES: Final = 30

OWN: Final = "machine"
"""Directory, in what the machine shares with this host, of what it needs for itself."""

SEEN_AT: Final = "/run/nixproc"
"""Where the machine sees that directory, whatever its path is."""

ITS_OWN: Final = frozenset(
    {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "lost+found", "proc", "run", "sbin", "sys"}
    | {"tmp", "usr", "var"}
)
"""Top-level directories that a machine has itself; of all others, it sees the host's."""

ETC: Final = (
    *(path for path in ESSENTIAL if path.startswith("/etc/")),
    *("/etc/pam.d", "/etc/security", "/etc/login.defs", "/etc/default/useradd", "/etc/shells", "/etc/skel"),
)
"""What programs of the host's ``/usr`` read, and cannot do their work without."""

HOSTS: Final = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"

UNIT: Final = f"""\
[Unit]
Description=Agent of pytest-nixproc
Requires=basic.target
After=basic.target

[Service]
Type=exec
ExecStart=/bin/sh {SEEN_AT}/agent
Delegate=yes
KillMode=process
TasksMax=infinity
LimitNOFILE=%d
"""
"""``KillMode``: what a test run wants to keep lives on when the agent has ended."""

LAUNCH: Final = """
while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift
mount --make-rprivate /
mount -t tmpfs -o mode=0755 nixproc /run
mkdir -p /run/systemd/system
while [ "$1" != -- ]; do mkdir -p "/run/upper$1"; shift; done; shift
exec "$@"
"""
"""Enters control groups, and has a ``/run`` of its own: nothing of nspawn's is left on the host, whoever kills it.

nspawn looks there for signs that the host was booted by systemd, which it need not be for what it is to do here.
"""

BOOT_OPTIONS: Final = (
    *("systemd.unit=basic.target", "systemd.wants=nixproc-agent.service"),
    # Its machine-id is given, and bound over the file: there is none to keep.
    "systemd.mask=systemd-machine-id-commit.service",
    *("systemd.journald.forward_to_console=1", "systemd.log_color=no", "systemd.show_status=error"),
)


class Nspawn(Remote):
    """One machine, from its boot to its end; the host's guardian has it below it, and ends it if nobody else does."""

    name: ClassVar[str] = "nspawn"
    throwaway: ClassVar[bool] = True

    def __init__(self, place: Place | None = None) -> None:
        super().__init__(place)
        self._host = Host()
        self._pids: list[int] = []
        """Of systemd-nspawn, and of the first process of the machine, each as this host numbers them."""

        self._agent: AgentConnection | None = None
        self._end = "has not been booted"
        self._released = False
        self._boots = 0
        self._forwarded: dict[int, socket.socket] = {}
        self._is_blocked = False

    @classmethod
    def obstacle(cls) -> str:
        """Say what is missing for a system container, with the remedy."""
        if sys.platform != "linux":
            return "system containers need Linux"
        if os.geteuid() != 0:
            return "only root can boot a system container: run the tests as root"
        for tool in ("systemd-nspawn", "unshare", "mount"):
            if not shutil.which(tool):
                return f"{tool} is not installed: apt-get install systemd-container util-linux"
        if not os.path.islink("/bin"):
            return "a volatile machine needs a host whose /bin and /lib are links into /usr (file-hierarchy(7))"
        groups = [path for path in control_groups("nixproc") if not os.access(os.path.dirname(path), os.W_OK)]
        return f"control groups cannot be made in {os.path.dirname(groups[0])}: is it read-only?" if groups else ""

    @classmethod
    def clear_away(cls, directory: str) -> list[str]:
        """Remove the control groups of a machine that has ended; its last processes may just be about to."""
        try:
            with open(f"{directory}/{OWN}/cgroups", encoding="utf-8") as file:
                groups = file.read().split()
        except OSError:
            return []
        with contextlib.suppress(WaitTimeout):
            wait_until(
                lambda: remove_groups(groups), Host().deadline(END_SECONDS), "wait for control groups to be free"
            )
        return [f"control group {group} cannot be removed" for group in groups if os.path.isdir(group)]

    @property
    def facts(self) -> Facts:
        """The host's: its software is the machine's, and only root makes machines."""
        return self._host.facts

    @property
    def is_up(self) -> bool:
        """Tell whether the machine runs."""
        return self._agent is not None and not self._host.ended(self._pids)

    @property
    def loss(self) -> MachineError | None:
        """Return how it died, if it was no test that put it down."""
        if self._agent is not None and not self.is_up:
            self._note_death()
        return self._down() if self._end.startswith(DIED) else None

    def _note_death(self) -> None:
        """Keep how the machine has ended in mind, once all of it has."""
        self._await_end(END_SECONDS)
        self._host.catch_up()
        status = self._host.exit_status(self._pids[0])
        self._kill()
        self._end = f"{DIED}: systemd-nspawn {describe_status(status)}" if status is not None else DIED

    def ask(self, verb: str, *arguments: object, handle: int | None = None) -> Any:
        """Have the agent carry a verb out; raises :class:`~pytest_nixproc.errors.MachineError` if there is none."""
        if self._agent is None:
            raise self._down()
        if self._host.ended(self._pids):
            self._note_death()
            raise self._down()
        try:
            return self._agent.ask(verb, *arguments, handle=handle)
        except (EOFError, ConnectionError):
            self._note_death()
            raise self._down() from None

    def _down(self) -> MachineError:
        return MachineError(f"machine {self.name} {self._end}", details=self._last_words())

    def _last_words(self) -> str:
        console = (self._host.read(self._own("console")) or b"").decode(errors="replace").replace("\r", "")
        return "\n".join(("end of its console:", *console.splitlines()[-CONSOLE_LINES:])) if console.strip() else ""

    def _own(self, name: str) -> str:
        return f"{self.place.directory}/{OWN}/{name}"

    def start(self) -> None:
        """Boot; returns when units can be started. Raises :class:`~pytest_nixproc.errors.MachineError`."""
        if self.is_up:
            return
        self._refuse_directory()
        groups = list(control_groups(f"nixproc-{os.path.basename(self.place.directory)}"))
        self._write_own_files(groups)
        self._boots += 1
        with listening(self._own("agent.socket")) as listener:
            for group in groups:
                os.mkdir(group)
            argv = (*scope(), "unshare", "--mount", "sh", "-ec", LAUNCH, "sh", *groups, "--", *self._boot_words())
            self._pids = [self._host.spawn(Spawn(program(argv), self._environment(), self._own("console")))]
            self._await_agent(listener)

    def _refuse_directory(self) -> None:
        """Raise for a directory whose path cannot be given to nspawn."""
        if not set(self.place.directory).isdisjoint(":\\\n") or self.place.directory.startswith("/run/"):
            brief = f"machine {self.name} cannot have its directory at {self.place.directory!r}"
            raise MachineError(brief, remedy="let --nixproc-state-root be outside /run, without colons and backslashes")

    def _write_own_files(self, groups: Iterable[str]) -> None:
        words = (sys.executable, "-I", "-c", AGENT, PACKAGE_ROOT, f"{SEEN_AT}/agent.socket")
        files = {
            "agent": f"exec {shlex.join(words)}\n",
            "unit": UNIT % self.facts.open_files,
            "hosts": HOSTS,
            # A machine that has one is not at its first boot, and does not enable all that is installed.
            "machine-id": f"{secrets.token_hex(16)}\n",
            "cgroups": "\n".join(groups),
            "console": "",
        }
        for name, content in files.items():
            self._host.write(self._own(name), content)
        self._host.remove(self._own("agent.socket"))

    def _environment(self) -> dict[str, str]:
        # The machine has the unified hierarchy of control groups, whichever the host has.
        tag, _, value = self.place.tag.partition("=")
        return {"PATH": self.path_variable, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", tag: value}

    def _boot_words(self) -> Iterator[str]:
        """Yield directories to be overlaid, and the command line of systemd-nspawn."""
        overlaid = list(directories_with_software())
        yield from (*overlaid, "--", "systemd-nspawn", "--quiet", "--directory=/", "--volatile=yes")
        yield from ("--register=no", "--keep-unit", "--console=read-only", f"--machine=nixproc-{secrets.token_hex(4)}")
        yield from (f"--overlay={path}:/run/upper{path}:{path}" for path in overlaid)
        yield from (f"--bind-ro={path}" for path in ETC if os.path.exists(path))
        yield from (f"--bind-ro={self._own(name)}:/etc/{name}" for name in ("hosts", "machine-id"))
        yield f"--bind-ro={self._own('unit')}:/run/systemd/system/nixproc-agent.service"
        yield from (f"--bind-ro={self._own('')}:{SEEN_AT}", f"--bind={self.place.directory}")
        yield f"--setenv={self.place.tag}"
        yield from ["--private-network"] if self.place.private_network else []
        yield from ("--boot", "--", *BOOT_OPTIONS)

    def _await_agent(self, listener: socket.socket) -> None:
        """Wait for the agent's call; whatever ends the wait ends the machine too."""
        try:
            wait_until(lambda: self._accept(listener), self._host.deadline(BOOT_SECONDS), "wait for its agent")
        except BaseException as error:
            self._kill()
            if isinstance(error, WaitTimeout):
                self._end = f"did not boot within {BOOT_SECONDS:g} s"
                raise self._down() from None
            raise

    def _accept(self, listener: socket.socket) -> str:
        """Take the agent's call if it has come."""
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            if self._host.ended(self._pids):
                self._host.catch_up()
                status = self._host.exit_status(self._pids[0]) or 0
                self._end = f"did not boot: systemd-nspawn {describe_status(status)}"
                raise self._down() from None
            return "it has not called"
        connection.settimeout(None)
        self._agent = AgentConnection(connection)
        self._pids += [pid for pid, parent in self._host.parents().items() if parent == self._pids[0]]
        return ""

    def shutdown(self, *, timeout: float = 60) -> None:
        """Have systemd power the machine off."""
        if self._agent is None:
            raise self._down()
        with contextlib.suppress(MachineError):
            # The agent may be ended before it has answered.
            self.execute(["systemctl", "--no-block", "poweroff"])
        if not self._await_end(timeout):
            brief = f"machine {self.name} did not shut down within {timeout:g} s"
            raise MachineError(brief, details=self._last_words())
        self._end_as("was shut down by a test")

    def crash(self) -> None:
        """Kill everything."""
        if self._agent is None:
            raise self._down()
        self._end_as("was crashed by a test")

    def put_down(self) -> None:
        """Kill everything, because it is not needed any more."""
        self._end_as("has been put down")

    def _end_as(self, end: str) -> None:
        self._kill()
        self._end = end

    @property
    def boots(self) -> int:
        """How often the machine has been booted."""
        return self._boots

    @property
    def is_released(self) -> bool:
        """Tell whether the machine lives on."""
        return self._released

    def _kill(self) -> None:
        """Kill systemd-nspawn and the machine's first process, with which the kernel kills all others; then tidy up."""
        self._hang_up()
        self._pids += descendants(self._pids[:1], self._host.parents())
        for pid in self._pids:
            self._host.signal(pid, signal.SIGKILL)
        self._await_end(END_SECONDS)
        self.clear_away(self.place.directory)

    def _hang_up(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        for listener in self._forwarded.values():
            listener.close()
        self._forwarded.clear()
        self._is_blocked = False

    def _await_end(self, seconds: float) -> bool:
        """Wait for the end of the machine's processes; tell whether it has come."""
        with contextlib.suppress(WaitTimeout):
            deadline = self._host.deadline(seconds)
            wait_until(
                lambda: "" if self._host.ended(self._pids) >= {*self._pids} else "it runs", deadline, "wait for its end"
            )
        return self._host.ended(self._pids) >= {*self._pids}

    def close(self) -> None:
        """End the machine, unless it was released."""
        if self._released:
            self._hang_up()
        else:
            self._kill()
        self._host.close()

    def release(self) -> None:
        """Let the machine live on with all that runs on it."""
        self.ask("release")
        self._host.release()
        self._released = True

    def capture_beside_tests(self, command: Spawn, deadline: Deadline) -> tuple[int | None, str]:
        """Run one command on this host."""
        return self._host.capture(command, deadline)

    def guard(self, root: str, recovery: Iterable[str]) -> int | None:
        """Leave a deployment to this host's guardian: it outlives the machine."""
        return self._host.guard(root, list(recovery))

    def unguard(self, root: str) -> None:
        """Take it back."""
        self._host.unguard(root)

    def read(self, path: str, start: int = 0) -> bytes | None:
        """Read a file there; what is shared can be read when the machine is down, logs most of all."""
        if self._agent is None and path.startswith(f"{self.place.directory}/"):
            return self._host.read(path, start)
        return super().read(path, start)

    def size(self, path: str) -> int:
        """Return a file's size; see :meth:`read`."""
        if self._agent is None and path.startswith(f"{self.place.directory}/"):
            return self._host.size(path)
        return super().size(path)

    def address(self, port: int) -> tuple[str, int]:
        """Return an address of this host's, from which the machine forwards to its own network if it has one."""
        if not self.place.private_network:
            return super().address(port)
        if port not in self._forwarded:
            self._forward(port, 0)
        return "127.0.0.1", int(self._forwarded[port].getsockname()[1])

    def _forward(self, port: int, own_port: int) -> None:
        listener = socket.create_server(("127.0.0.1", own_port))
        self._forwarded[port] = listener
        if not self._is_blocked:
            self.ask("forward", port, handle=listener.fileno())

    def block(self) -> None:
        """Stop forwarding: connections are cut, and new ones stay without an answer."""
        self._refuse_shared_network()
        if not self._is_blocked:
            for port in self._forwarded:
                self.ask("end_forward", port)
        self._is_blocked = True

    def unblock(self) -> None:
        """Forward again, from the same addresses."""
        self._refuse_shared_network()
        if self._is_blocked:
            self._is_blocked = False
            for port, listener in self._forwarded.items():
                self.ask("forward", port, handle=listener.fileno())

    def _refuse_shared_network(self) -> None:
        if not self.place.private_network:
            brief = f"machine {self.name} cannot be cut off: it shares this host's network"
            raise MachineError(brief, remedy="give it one of its own: --nixproc-network=private")


def directories_with_software() -> Iterator[str]:
    """Yield the host's top-level directories that a machine would not have, and that hold anything."""
    for name in sorted(set(os.listdir("/")) - ITS_OWN):
        path = f"/{name}"
        with contextlib.suppress(OSError):
            if os.path.isdir(path) and not os.path.islink(path) and os.listdir(path):
                yield path


def control_groups(name: str) -> Iterator[str]:
    """Yield where to make control groups of this name: below our own, in the hierarchies that systemd uses.

    None on a host that was booted by systemd: its manager makes them (``Delegate=``, systemd.resource-control(5)).
    """
    if is_booted_by_systemd():
        return
    unified = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    mounts = {"": unified, "name=systemd": "/sys/fs/cgroup/systemd"}
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file.read().splitlines():
            _, kind, path = line.split(":", 2)
            if kind in mounts and os.path.isdir(mounts[kind]):
                yield f"{mounts[kind]}{path.rstrip('/')}/{name}"


def remove_groups(groups: Iterable[str]) -> str:
    """Remove control groups and those below them; return which of them are still in use."""
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
    return ", ".join(group for group in groups if os.path.isdir(group))


def is_booted_by_systemd() -> bool:
    """Tell whether this host was (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def scope() -> tuple[str, ...]:
    """Return the words that have systemd put a command into a control group of its own, where it runs the host."""
    if not is_booted_by_systemd():
        return ()
    return ("systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes")


def program(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command line with the full path of its program."""
    return (shutil.which(argv[0]) or argv[0], *argv[1:])


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """Listen on a Unix socket for the time of a ``with`` block, without ever blocking."""
    directory = os.open(os.path.dirname(path), os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(0)
            # By way of its directory, a path may have more than the 107 bytes of an address (unix(7)).
            listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            listener.listen(1)
            yield listener
    finally:
        os.close(directory)


@hookimpl
def nixproc_machines() -> list[type[Machine]]:
    """Offer this machine."""
    return [Nspawn]
