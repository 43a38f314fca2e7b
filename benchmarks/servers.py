"""The servers of the benchmarks, whose own start costs next to nothing: where they are, and whether they answer."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_nixproc import Instance, ProcessesModel, create_managed_process

HERE: Final = Path(__file__).resolve().parent

PORTS: Final = range(10_000, 20_000)
"""Below the ports that the package leases, and those that the kernel gives to clients, who could meet themselves."""

POLL_SECONDS: Final = 0.0005
LIMIT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Timing:
    """Seconds of one deployment and its teardown."""

    deploy: float
    teardown: float

    @property
    def total(self) -> float:
        """Return both together."""
        return self.deploy + self.teardown


@dataclass(frozen=True)
class Work:
    """The servers to be deployed: one for each port, listening after a delay in milliseconds."""

    server: str
    ports: Sequence[int]
    delay: int

    def argv(self, port: int) -> list[str]:
        """Return the command of one server."""
        return [self.server, str(port), *(["--delay", str(self.delay)] if self.delay else [])]


def compile_server(directory: str) -> str:
    """Compile the server, statically where the C library can be linked so."""
    program = f"{directory}/server"
    command = ["cc", "-O2", "-o", program, str(HERE / "server.c")]
    if subprocess.run([*command, "-static"], capture_output=True, check=False).returncode != 0:
        subprocess.run(command, check=True)
    return program


def free_ports(count: int) -> list[int]:
    """Return ports in a row that nobody uses, from a place that other runs are unlikely to choose."""
    ports: list[int] = []
    for port in range(random.randrange(PORTS.start, PORTS.stop - 2 * count), PORTS.stop):  # noqa: S311 - no secret
        ports = [] if accepts(socket.AF_INET, ("127.0.0.1", port)) else [*ports, port]
        if len(ports) == count:
            return ports
    raise SystemExit("there are not enough free ports")


def model_of(work: Work) -> ProcessesModel:
    """Return the servers as a processes model."""
    return ProcessesModel({f"server{port}": instance_of(work, port) for port in work.ports})


def instance_of(work: Work, port: int) -> Instance:
    """Return one server as an instance."""
    program, *args = work.argv(port)
    return Instance(port=port, pkg=create_managed_process(name=f"server{port}", foreground_process=program, args=args))


def await_ports(ports: Iterable[int]) -> None:
    """Wait until all ports accept connections, looking at them in order."""
    for port in ports:
        await_answer(socket.AF_INET, ("127.0.0.1", port))


def await_answer(family: socket.AddressFamily, address: tuple[str, int] | str) -> None:
    """Wait until an address accepts connections."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not accepts(family, address):
        if time.monotonic() > deadline:
            raise SystemExit(f"{address} does not answer")
        time.sleep(POLL_SECONDS)


def accepts(family: socket.AddressFamily, address: tuple[str, int] | str) -> bool:
    """Tell whether an address accepts connections."""
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def refuse_left_ports(work: Work) -> None:
    """Raise when a teardown has left a server behind: what it took would mean nothing."""
    if left := [port for port in work.ports if accepts(socket.AF_INET, ("127.0.0.1", port))]:
        raise SystemExit(f"still answering after the teardown: {left}")
