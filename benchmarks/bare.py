"""Managers without us: each runs the servers of a benchmark as those have it do who want nothing but speed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from xmlrpc import client

from supervisor.xmlrpc import SupervisorTransport

from benchmarks.servers import LIMIT_SECONDS, Timing, Work, await_answer, await_ports

SYSTEMD: Final = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
ENTER: Final = """
set -e
echo $$ > "$1/cgroup.procs"
exec unshare --mount --propagation private sh -c 'mkdir -p /run/systemd
mount -n -t tmpfs -o mode=755 tmpfs /run/systemd
mkdir /run/systemd/system
[ -e /sys/fs/cgroup/cgroup.procs ] || mount -n --bind /sys/fs/cgroup/unified /sys/fs/cgroup
exec "$0" --user --unit=basic.target --log-target=null' "$2"
"""
"""Runs a systemd in a control group, with the directory by which it tells that one has booted (sd_booted(3))."""


class Runner(ABC):
    """Somebody who runs the servers of a benchmark: a manager alone, or a deployment of ours."""

    @abstractmethod
    def start(self) -> None:
        """Start the manager and all servers, which need not answer yet."""

    @abstractmethod
    def look(self) -> object:
        """Ask for the state of all servers."""

    @abstractmethod
    def restart(self, port: int) -> None:
        """Stop one server and start it again."""

    @abstractmethod
    def replace(self, port: int, argv: Sequence[str]) -> None:
        """Let one server have another command, and run it."""

    @abstractmethod
    def stop(self) -> None:
        """Stop all servers and the manager, and wait until they are gone."""


class Bare(Runner):
    """A manager alone, in a directory of its own."""

    def __init__(self, work: Work, directory: Path) -> None:
        self.work = work
        self.directory = directory

    def timing(self) -> Timing:
        """Start everything, wait for all ports, and stop it; return what both took."""
        begin = time.perf_counter()
        try:
            self.start()
            await_ports(self.work.ports)
            up = time.perf_counter()
        finally:
            self.stop()
        return Timing(up - begin, time.perf_counter() - up)


class Processes(Bare):
    """No manager: the servers are children of this process. Nothing can be done with less."""

    def start(self) -> None:
        """Start all servers at once."""
        self.processes = {port: subprocess.Popen(self.work.argv(port)) for port in self.work.ports}

    def look(self) -> None:
        """Ask the kernel for each server."""
        for process in self.processes.values():
            process.poll()

    def restart(self, port: int) -> None:
        """End one server, and start it again."""
        self.replace(port, self.work.argv(port))

    def replace(self, port: int, argv: Sequence[str]) -> None:
        """End one server, and start another one."""
        self.processes[port].terminate()
        self.processes[port].wait(LIMIT_SECONDS)
        self.processes[port] = subprocess.Popen(argv)

    def stop(self) -> None:
        """End all servers at once."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(LIMIT_SECONDS)


class Supervisord(Bare):
    """A supervisord whose programs are ready at once.

    It is woken and shut down through its socket: else it would sleep for up to a second first.
    """

    def start(self) -> None:
        """Start it, and wake it."""
        self.write_configuration({})
        argv = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", f"{self.directory}/conf"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        await_answer(socket.AF_UNIX, f"{self.directory}/socket")
        transport = SupervisorTransport(None, None, f"unix://{self.directory}/socket")
        self.manager: Any = client.ServerProxy("http://localhost", transport).supervisor
        self.manager.getState()

    def write_configuration(self, others: dict[int, Sequence[str]]) -> None:
        """Write the configuration, with other commands for some servers."""
        directory = self.directory
        sections = [
            f"[supervisord]\nlogfile={directory}/log\npidfile={directory}/pid\nchildlogdir={directory}",
            f"[unix_http_server]\nfile={directory}/socket",
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for port in self.work.ports:
            command = " ".join(others.get(port) or self.work.argv(port))
            sections.append(f"[program:server{port}]\ncommand={command}\nstartsecs=0\nautorestart=false")
        (directory / "conf").write_text("\n\n".join(sections) + "\n")

    def look(self) -> None:
        """Ask for all programs at once."""
        self.manager.getAllProcessInfo()

    def restart(self, port: int) -> None:
        """Restart one program."""
        self.manager.stopProcess(f"server{port}")
        self.manager.startProcess(f"server{port}")

    def replace(self, port: int, argv: Sequence[str]) -> None:
        """Have one program read anew, as ``supervisorctl update`` does."""
        self.write_configuration({port: argv})
        self.manager.reloadConfig()
        self.manager.stopProcessGroup(f"server{port}")
        self.manager.removeProcessGroup(f"server{port}")
        self.manager.addProcessGroup(f"server{port}")

    def stop(self) -> None:
        """Shut it down."""
        try:
            self.manager.shutdown()
            self.process.wait(LIMIT_SECONDS)
        finally:
            self.process.terminate()
            self.process.wait(LIMIT_SECONDS)


class Systemd(Bare):
    """A systemd of its own, whose units hold nothing but a command; one ``systemctl`` for all of them."""

    def start(self) -> None:
        """Start it, and all services by one command."""
        self.units.mkdir()
        for name in ("basic.target", "shutdown.target"):
            (self.units / name).write_text("[Unit]\nDefaultDependencies=no\n")
        for port in self.work.ports:
            self.write_unit(port, self.work.argv(port))
        self.group.mkdir()
        program = next(filter(os.path.exists, SYSTEMD))
        self.process = subprocess.Popen(["/bin/sh", "-c", ENTER, "sh", self.group, program], env=self.environment)
        await_answer(socket.AF_UNIX, f"{self.directory}/systemd/private")
        self.ask("start", *self.names)

    @property
    def units(self) -> Path:
        """The only directory in which it looks for units."""
        return self.directory / "units"

    @property
    def group(self) -> Path:
        """Its control group."""
        text = Path("/proc/self/cgroup").read_text()
        own = next(line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::"))
        mounts = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        mount = next(place for place in mounts if os.path.exists(f"{place}/cgroup.procs"))
        return Path(f"{mount}{own}/{self.directory.name}")

    @property
    def environment(self) -> dict[str, str]:
        """Its environment, and that of commands for it."""
        generators = dict.fromkeys(("SYSTEMD_GENERATOR_PATH", "SYSTEMD_ENVIRONMENT_GENERATOR_PATH"), "")
        own = {"XDG_RUNTIME_DIR": str(self.directory), "SYSTEMD_UNIT_PATH": str(self.units)}
        return {"PATH": os.environ["PATH"], **own, **generators}

    @property
    def names(self) -> list[str]:
        """The names of all services."""
        return [f"server{port}.service" for port in self.work.ports]

    def write_unit(self, port: int, argv: Sequence[str]) -> None:
        """Write the unit of one server."""
        (self.units / f"server{port}.service").write_text(f"[Service]\nExecStart={' '.join(argv)}\n")

    def ask(self, *words: str) -> None:
        """Run one command."""
        argv = ["systemctl", "--user", *words]
        subprocess.run(argv, env=self.environment, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_SECONDS)

    def look(self) -> None:
        """Ask for all services at once."""
        self.ask("show", "--property=Id,ActiveState,SubState,MainPID", *self.names)

    def restart(self, port: int) -> None:
        """Restart one service."""
        self.ask("restart", f"server{port}.service")

    def replace(self, port: int, argv: Sequence[str]) -> None:
        """Have all units read anew, and restart one."""
        self.write_unit(port, argv)
        self.ask("daemon-reload")
        self.restart(port)

    def stop(self) -> None:
        """Stop all services by one command, and kill the systemd with its control group."""
        try:
            self.ask("stop", *self.names)
        finally:
            (self.group / "cgroup.kill").write_text("1")
            self.process.wait(LIMIT_SECONDS)
            deadline = time.monotonic() + LIMIT_SECONDS
            while self.group.exists() and time.monotonic() < deadline:
                for path in sorted(self.group.rglob("*/"), reverse=True):
                    with suppress(OSError):
                        path.rmdir()
                with suppress(OSError):
                    self.group.rmdir()


BARE: Final[dict[str, type[Bare]]] = {"sysvinit": Processes, "supervisord": Supervisord, "systemd": Systemd}
"""What each manager is held against, by the manager's name; sysvinit is nothing but scripts, and has no process."""
