"""Ports of a rootless engine, whose containers have the engine's own network instead of the host's.

RootlessKit, which made that network, forwards ports of the machine into it when it is asked to, on a Unix socket
(github.com/rootless-containers/rootlesskit, docs/port.md and pkg/api).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import ancestors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import Session

ADDRESS: Final = "127.0.0.1"
URL: Final = "http+unix://rootlesskit/v1/ports"
VARIABLE: Final = b"ROOTLESSKIT_STATE_DIR="
SECONDS: Final = 5


class RootlessForwards:
    """The ports that are forwarded for one deployment; a file says which, for whoever takes it down."""

    def __init__(self, machine: Machine, record: str) -> None:
        self.machine = machine
        self.record = record

    def open(self, first: int, ports: Collection[int]) -> None:
        """Forward ports into the network of a process; raises :class:`~pytest_nixproc.errors.DeploymentError`."""
        _, known = self._recorded()
        # An instance that is started again after a crash has its forwards still.
        self.close(set(ports) & set(known))
        socket = self._socket_of(first)
        with session(socket) as api:
            for port in ports:
                self._write(socket, {*known, port})
                spec = {"proto": "tcp", "parentIP": ADDRESS, "parentPort": port, "childPort": port}
                answer = api.post(URL, json=spec)
                if not answer.ok:
                    # It is somebody else's.
                    self._write(socket, known)
                    raise DeploymentError(f"RootlessKit does not forward TCP port {port}: {answer.text.strip()}")
                known = [*known, port]

    def close(self, ports: Iterable[int] | None = None) -> None:
        """Stop forwarding some ports, or all of the deployment's; an engine that is gone forwards nothing."""
        from requests.exceptions import RequestException

        socket, known = self._recorded()
        unwanted = set(known if ports is None else ports)
        if not unwanted or self.machine.network.connection_problem(socket):
            return
        with suppress(RequestException), session(socket) as api:
            for entry in api.get(URL).json() or ():
                if entry["spec"]["parentPort"] in unwanted:
                    api.delete(f"{URL}/{entry['id']}")

    def _write(self, socket: str, ports: Iterable[int]) -> None:
        """Record ports, before they are forwarded."""
        self.machine.files.write(self.record, json.dumps([socket, sorted(set(ports))]), 0o600)

    def _recorded(self) -> tuple[str, list[int]]:
        content = self.machine.files.read(self.record)
        socket, ports = json.loads(content) if content else ("", [])
        return socket, ports

    def _socket_of(self, pid: int) -> str:
        """Return the socket of the RootlessKit above a process, which the environment of its children names."""
        for above in ancestors(pid, self.machine.processes.parents()):
            for entry in (self.machine.files.read(f"/proc/{above}/environ") or b"").split(b"\0"):
                if entry.startswith(VARIABLE):
                    return f"{entry.removeprefix(VARIABLE).decode()}/api.sock"
        brief = "the engine's host network is not this machine's, and nobody forwards ports into it"
        raise DeploymentError(brief, remedy="run the engine below RootlessKit, or in the machine's network")


@contextmanager
def session(socket: str) -> Iterator[Session]:
    """Return a session that speaks HTTP on a Unix socket."""
    from docker.transport import UnixHTTPAdapter
    from requests import Session

    with Session() as api:
        api.mount("http+unix://", UnixHTTPAdapter(f"http+unix://{socket}", SECONDS, 1))
        yield api
