"""A Docker engine of a test's own, which can be ended, hung and started again without disturbing anybody."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.process_table import command_line, descendants, parents
from pytest_nixproc.managers.docker.engine import connect
from tests.crash.storm import wait

if TYPE_CHECKING:
    from docker import DockerClient

START_SECONDS: Final = 30.0
REQUIRED: Final = "dockerd" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(",")


class PrivateEngine:
    """An engine with all of its data below one directory; not started yet."""

    def __init__(self, program: str, directory: str) -> None:
        self.program = program
        self.directory = directory
        self.address = f"unix://{directory}/sock"
        self.bridge = f"np{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        # Images are nearly empty, so copies of them cost nothing, and need no file system of a kind.
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        options = [f"--{name}={self.directory}/{place}" for name, place in places.items()]
        # A bridge of its own: without one, it would remove that of the machine's engine.
        self._make_bridge()
        options += ["--iptables=false", f"--bridge={self.bridge}", "--storage-driver=vfs", f"--host={self.address}"]
        with open(f"{self.directory}/log", "ab") as log:
            # containerd may write there, when its engine thinks it dead.
            own = {**os.environ, "TMPDIR": self.directory}
            argv = [self.program, *options]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, env=own, start_new_session=True)
        wait(lambda: self._answers() or self._has_ended(), START_SECONDS)
        assert self._answers(), f"dockerd does not start: {Path(f'{self.directory}/log').read_text()[-1000:]}"

    def _make_bridge(self) -> None:
        if not os.path.exists(f"/sys/class/net/{self.bridge}"):
            network = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}.1/24"
            ip("link", "add", self.bridge, "type", "bridge")
            ip("address", "add", network, "dev", self.bridge)
            ip("link", "set", self.bridge, "up")

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _answers(self) -> bool:
        try:
            connect(self._environment, 1).close()
        except NixprocError:
            return False
        return True

    @property
    def _environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.address}

    @contextmanager
    def client(self) -> Iterator[DockerClient]:
        """Return a client for the time of a ``with`` block."""
        client = connect(self._environment)
        yield client
        client.close()

    def hit(self, number: int) -> None:
        """Send it a signal, and wait for its end if that is what the signal is for."""
        assert self._process is not None, "the engine is not started"
        own = descendants([self._process.pid], parents())
        self._process.send_signal(number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._process.wait(START_SECONDS)
            # What still seems to run would not be started again.
            wait(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in own), START_SECONDS)

    def bring_back(self) -> None:
        """Let it go on, or start it again."""
        if self._has_ended():
            self.start()
        else:
            self.hit(signal.SIGCONT)
            assert wait(self._answers, START_SECONDS), "the engine does not come back"

    def contents(self) -> list[str]:
        """Return everything that the engine has."""
        with self.client() as client:
            volumes = client.api.volumes()["Volumes"] or ()
            return [
                *(name for entry in client.api.containers(all=True) for name in entry["Names"]),
                *(name for image in client.api.images() for name in image["RepoTags"] or (image["Id"],)),
                *(volume["Name"] for volume in volumes),
            ]

    def end(self) -> None:
        """End it, and what it may have left behind when it was killed."""
        if not self._has_ended():
            self.hit(signal.SIGCONT)
            self.hit(signal.SIGTERM)
        for pid in parents():
            if self.directory in command_line(pid):
                os.kill(pid, signal.SIGKILL)
        for mount in mounts_below(self.directory):
            subprocess.run(["/bin/umount", "--lazy", mount], check=True)
        if os.path.exists(f"/sys/class/net/{self.bridge}"):
            ip("link", "delete", self.bridge)


def ip(*words: str) -> None:
    """Change the machine's network (ip(8))."""
    program = shutil.which("ip")
    assert program, "private_engine() has looked for it"
    subprocess.run([program, *words], check=True)


def mounts_below(directory: str) -> list[str]:
    """Return the mount points in a directory (proc(5), /proc/PID/mountinfo), the innermost first."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in reversed(places) if place.startswith(f"{directory}/")]


def find_dockerd() -> str:
    """Return the engine's program; skip the test where it cannot run, or fail it where it has to."""
    program = shutil.which("dockerd")
    if program is None or shutil.which("ip") is None or os.getuid() != 0:
        lacking = "an engine of the test's own needs root, dockerd and ip (docker.io, iproute2)"
        (pytest.fail if REQUIRED else pytest.skip)(lacking)
    return program


@contextmanager
def private_engine() -> Iterator[PrivateEngine]:
    """Return an engine, not started, in a directory with a short path; everything of it is removed in the end."""
    program = find_dockerd()
    directory = tempfile.mkdtemp(prefix="dk")
    engine = PrivateEngine(program, directory)
    try:
        yield engine
    finally:
        engine.end()
        shutil.rmtree(directory)
