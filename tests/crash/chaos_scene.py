"""Where a scenario of chaos takes place: namespaces, a control group, one session, and what is left of it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Final

from pytest_nixproc import errors
from pytest_nixproc._persistence.leases import VARIABLE
from pytest_nixproc.machines.process_table import command_line, is_alive, parents, stat_fields
from tests.crash.private_engine import PrivateEngine
from tests.crash.storm import LIMIT_SECONDS, RUN_SECONDS, Session, storm_files, wait

ROOT: Final = Path(__file__).resolve().parents[2]
NEEDED: Final = tuple(dict.fromkeys((sys.prefix, os.path.realpath(sys.base_prefix), str(ROOT))))
"""What sessions are made of: it has to be reachable wherever it lies."""

PRIVATE: Final = ("/tmp", "/var/tmp", "/dev/shm")
CONTROL_GROUPS: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
USER: Final = 61_234
LOOK_SECONDS: Final = 0.2
MS_BIND_REC: Final = 4096 | 16384
OPTIONS: Final = (
    "--nixproc-model=processes.py",
    "--nixproc-stop-timeout=1",
    "--nixproc-start-timeout=20",
    "-p",
    "no:hypothesispytest",
)

COMMANDS: Final = {
    "guardian": "pytest_nixproc.machines.guardian.process",
    "supervisord": "-m supervisor.supervisord",
    "systemd": "systemd --user",
    "agent": "pytest_nixproc.machines.nspawn.agent",
    "engine": "dockerd",
}
"""What the command lines of those have that may be hit."""


class PipedSession(Session):
    """A session that prints into a pipe: neither limits of files nor full disks cut off what it says."""

    def __init__(self, place: str, files: dict[str, str]) -> None:
        super().__init__(place, files)
        self._printed = bytearray()
        os.mkfifo(f"{place}/output")
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with open(f"{self.place}/output", "rb", buffering=0) as pipe:
            while text := pipe.read(65536):
                self._printed += text

    @property
    def output(self) -> str:
        """What the session has printed."""
        return self._printed.decode(errors="replace")


class Scene:
    """One session that is disturbed, what a line has to name if that is told, and how to undo the disturbance."""

    def __init__(self, manager: str, seed: int, attempt: int, moments: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the same numbers for the same seed are what is wanted
        self.longest = 0.4 / 2**attempt
        """How many seconds after the beginning of a phase a hit may come: less, the more of them came too late."""

        self.moments = moments
        """How many bytes of a file to try; 0 for all."""

        self.manager = manager
        self.names: set[str] = set()
        self.undo: list[Callable[[], object]] = []
        self.wrapper: list[str] = []
        self.options = [*OPTIONS]
        self.variables: dict[str, str] = {"HOME": "/tmp/home"}
        self.asleep: set[int] = set()
        self.at_end: list[Callable[[], object]] = []
        os.makedirs("/tmp/home")
        os.makedirs("/tmp/kl", mode=0o700)
        self.leases = "/tmp/kl/leases"
        os.environ[VARIABLE] = self.leases
        self.engine = self._start_engine() if manager == "docker" else None
        self.place = tempfile.mkdtemp(prefix="ks", dir="/tmp")
        self.session = PipedSession(self.place, storm_files())
        if self.engine is not None:
            self.session.bystander = self.engine.directory

    def _start_engine(self) -> PrivateEngine:
        directory = tempfile.mkdtemp(prefix="dk")
        engine = PrivateEngine(shutil.which("dockerd") or "dockerd", directory)
        engine.start()
        os.environ["DOCKER_HOST"] = engine.address
        return engine

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        Path(self.place, "project", name).write_text(text)

    def begin(self) -> None:
        """Start the session; what there is now is nothing that it leaves."""
        self.before = self.files()
        self.mounts = set(mount_points())
        self.session.wrapper = tuple(self.wrapper)
        workers = any(option.startswith("-n") for option in self.options)
        options = self.options if workers else [*self.options, "-p", "no:xdist", "test_0.py"]
        self.session.start(*options, manager=self.manager, **self.variables)

    def files(self) -> set[str]:
        """Return what there is in the temporary directories and the home directory."""
        directories = (*PRIVATE, "/tmp/home", self.variables.get("TMPDIR", ""))
        names = (f"{one}/{name}" for one in directories if os.path.isdir(one) for name in os.listdir(one))
        # pytest keeps the temporary files of its last sessions on purpose.
        return {name for name in names if "/pytest-of-" not in name}

    def phase(self, pid: int = 0) -> str:
        """Return the phase that the session, or one process of it, has reached."""
        return self.session.marks().get(pid or self.session.pid, "start")

    def root(self) -> str:
        """Return the directory of the deployment; raise if there is none."""
        with os.scandir(self.session.state_root) as entries:
            return next(entry.path for entry in entries if entry.is_dir() and len(entry.name) == 8)

    def pids(self, victim: str) -> list[int]:
        """Return the processes that are meant by a name."""
        if victim == "pytest":
            return [self.session.pid]
        if victim == "worker":
            return sorted(set(self.session.marks()) - {self.session.pid})[:1]
        if victim == "server":
            victim_part = "testing/programs/probe.py"
        else:
            victim_part = COMMANDS[self.manager.partition("@")[0] if victim == "manager" else victim]
        return [pid for pid in sorted(parents()) if victim_part in command_line(pid) and is_alive(pid)][:1]

    def stop(self, pid: int) -> None:
        """Freeze a process, and wait until it is."""
        os.kill(pid, signal.SIGSTOP)
        wait(lambda: stat_fields(pid)[:1] in (["T"], ["Z"], []), 5)

    def left(self) -> dict[str, list[str]]:
        """Return what there is of the session, by kind of trace, outside of its deployments too."""
        found = self.session.left()
        own = {self.place, "/tmp/kl", "/tmp/home"} | {self.session.state_root}
        found["files"] = sorted(self.files() - self.before - own)
        found["mounts"] = sorted(set(mount_points()) - self.mounts)
        found["groups"] = groups_below(own_group())
        return {kind: traces for kind, traces in found.items() if traces}

    def await_end_of_what_is_left(self, said: str, seconds: float) -> bool:
        """Wait until nothing is left but what is named; return whether anything is that is not."""

        def is_clear() -> bool:
            # Looking costs more than what is looked for may need to end.
            time.sleep(LOOK_SECONDS)
            return not unnamed(self.left(), said)

        return not wait(is_clear, seconds)

    def reap(self) -> str:
        """Run ``nixproc reap`` as the session was run; return what it says."""
        argv = [*self.wrapper, sys.executable, "-m", "pytest_nixproc", "reap"]
        done = subprocess.run(
            argv,
            cwd="/",
            env={**os.environ, **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )
        return done.stdout

    def mount(self, directory: str, options: str) -> str:
        """Mount a file system in memory, for the time of the scenario."""
        os.makedirs(directory, exist_ok=True)
        command("mount", "-t", "tmpfs", "-o", options, "tmpfs", directory)
        return directory

    def end(self) -> None:
        """End all that runs; the engine too, and its control groups with it."""
        with suppress(Exception):
            self.session.clean_up()
        if self.engine is not None:
            self.engine.end()
        for action in self.at_end:
            action()


FRAME: Final = re.compile(r'File "[^"]*pytest_nixproc/(?!testing/)[^"]*", line \d')
END: Final = re.compile(r"^(\S+\.py):\d+: (\w+)$", re.MULTILINE)
SECTION: Final = re.compile(r"^_{3,} .* _{3,}$", re.MULTILINE)
ERRORS: Final = {name for name, value in vars(errors).items() if isinstance(value, type)}


def reveals_us(said: str) -> str:
    """Return the line in which an output shows that code of ours has failed, or "".

    That is a frame of ours in a traceback, and an exception that is none of ours and comes out of our code. What pytest
    shows of a test that has called us, and was told so by an error of ours, is none.
    """
    if found := next((line for line in said.splitlines() if FRAME.search(line)), ""):
        return found
    for section in SECTION.split(said):
        if ends := END.findall(section):
            path, name = ends[-1]
            if "pytest_nixproc/" in path and name not in ERRORS:
                return f"{path}: {name}"
    return ""


def named(kind: str, trace: str, output: str) -> bool:
    """Tell whether what is left is named in an output: by path, pid, port, or the name of a deployment."""
    if kind in ("processes", "ports"):
        return re.search(rf"\b{trace.partition(' ')[0]}\b", output) is not None
    return os.path.basename(trace).removesuffix(".json") in output


def unnamed(left: dict[str, list[str]], output: str) -> dict[str, list[str]]:
    """Return what is left and not named in an output."""
    found = {kind: [trace for trace in traces if not named(kind, trace, output)] for kind, traces in left.items()}
    return {kind: traces for kind, traces in found.items() if traces}


def command(*words: str) -> None:
    """Run a program of the system; raise when it fails."""
    program = shutil.which(words[0], path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert program, f"there is no {words[0]}"
    subprocess.run([program, *words[1:]], check=True, stdout=subprocess.DEVNULL)


def mount_points() -> list[str]:
    """Return all mount points (proc(5), /proc/PID/mountinfo)."""
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def own_group() -> str:
    """Return the control group of version 2 that this process is in."""
    mount = next((mount for mount in CONTROL_GROUPS if os.path.exists(f"{mount}/cgroup.procs")), "")
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((f"{mount}{line[3:]}" for line in lines if mount and line.startswith("0::")), "")


def groups_below(group: str) -> list[str]:
    """Return the control groups below one that is not the root, the innermost first."""
    if not group or group.rstrip("/") in CONTROL_GROUPS:
        return []
    return [path for path, _, _ in os.walk(group, topdown=False) if path != group]


@contextmanager
def control_group() -> Iterator[str]:
    """Return a new control group of version 2 below ours, or "" without any; it is removed with all below it."""
    mount = next((mount for mount in CONTROL_GROUPS if os.path.exists(f"{mount}/cgroup.procs")), "")
    if not mount:
        yield ""
        return
    group = f"{mount}/nixproc-chaos-{secrets.token_hex(4)}"
    os.mkdir(group)
    try:
        yield group
    finally:
        wait(lambda: not Path(group, "cgroup.procs").read_text(), LIMIT_SECONDS)
        for path in (*groups_below(group), group):
            with suppress(OSError):
                os.rmdir(path)


def libc_mount(source: str, target: str) -> None:
    """Bind a directory elsewhere by mount(2): mount(8) would resolve the link to what has been covered."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), None, MS_BIND_REC, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def cover(directory: str, mode: str) -> None:
    """Cover a directory by an empty one, in which there is only what sessions need."""
    keep = [path for path in NEEDED if path.startswith(f"{directory}/")]
    held = {path: os.open(path, os.O_PATH) for path in keep}
    command("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", directory)
    for path, descriptor in held.items():
        os.makedirs(path, exist_ok=True)
        libc_mount(f"/proc/self/fd/{descriptor}", path)
        os.close(descriptor)


def furnish() -> None:
    """Make this process's namespaces private: temporary directories, home directories that are closed, the network."""
    for directory in PRIVATE:
        cover(directory, "1777")
    for path in NEEDED:
        for directory in map(str, reversed(Path(path).parents)):
            if not os.stat(directory).st_mode & 0o001:
                cover(directory, "755")
    interface = struct.pack("16sH14x", b"lo", 1)  # IFF_UP: netdevice(7)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, interface)


@contextmanager
def frozen(scene: Scene, pid: int) -> Iterator[None]:
    """Freeze a process for the time of a ``with`` block, so that its phase does not end meanwhile."""
    scene.stop(pid)
    try:
        yield
    finally:
        if pid not in scene.asleep and is_alive(pid):
            os.kill(pid, signal.SIGCONT)


def hit_in(scene: Scene, phase: str, victim: str, hit: Callable[[Scene], bool]) -> bool:
    """Hit a session at a random moment of a phase; return whether that took place."""

    def watched() -> int:
        pids = scene.pids(victim)
        return pids[0] if pids else 0

    def has_begun() -> bool:
        pid = watched()
        return bool(pid) and scene.phase(pid) == phase

    wait(lambda: has_begun() or scene.session.is_over(), RUN_SECONDS)
    time.sleep(scene.chance.uniform(0, scene.longest))
    pid = watched()
    if not pid or not is_alive(pid):
        return False
    with frozen(scene, pid):
        return is_alive(pid) and scene.phase(pid) == phase and hit(scene)
