"""The connection of one deployment to its engine: always to the same one, which is never waited for too long."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Final

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.docker.engine import address, answering, connect, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

LOOK_SECONDS: Final = 4
MAKE_SECONDS: Final = 10
LOAD_SECONDS: Final = 600
IMPATIENT_SECONDS: Final = 1
"""How long to wait for an answer: to a look, which is no work; to a request; and to any, once one was owed."""


class Connection:
    """Clients of one engine; a record says which it is, for whoever takes the deployment down."""

    def __init__(self, machine: Machine, record: str) -> None:
        self.machine = machine
        self.record = record
        self.owes_answers = False
        """Whether an answer was owed at some time: what was asked for then may still be done."""

        self._clients: dict[int, DockerClient] = {}
        self._connecting = Lock()
        self._patience = LOAD_SECONDS

    def open(self) -> None:
        """Connect to the engine that the environment leads to, and record it."""
        self._environment = settings(os.environ)
        with self.asking():
            self.machine.write(self.record, json.dumps(self._environment), 0o600)

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            client.close()

    @property
    def is_recorded(self) -> bool:
        """Tell whether there was a connection ever."""
        return self.machine.exists(self.record)

    @property
    def address(self) -> str:
        """Where the engine is."""
        return address(self._environment)

    @cached_property
    def _environment(self) -> Mapping[str, str]:
        """The variables that lead to the engine of this deployment."""
        record = self.machine.read(self.record)
        return os.environ if record is None else json.loads(record)

    def _client(self, seconds: int) -> DockerClient:
        """Return the client that waits so long for answers; they agree with the engine on a version once."""
        with self._connecting:
            if seconds not in self._clients:
                others = [other.api.api_version for other in self._clients.values()]
                self._clients[seconds] = connect(self._environment, seconds, *others[:1])
            return self._clients[seconds]

    @contextmanager
    def asking(self, seconds: int = LOOK_SECONDS) -> Iterator[DockerClient]:
        """Ask the engine; once it has not answered, it is not waited for as long as before."""
        from docker.errors import APIError

        with answering(self.address):
            client = self._client(seconds)
            client.api.timeout = min(seconds, self._patience)
            try:
                yield client
            except APIError:
                raise
            except OSError:
                self._patience, self.owes_answers = IMPATIENT_SECONDS, True
                raise
            self._patience = LOAD_SECONDS

    @cached_property
    def is_rootless(self) -> bool:
        """Whether the engine runs as an ordinary user, who is root in its containers."""
        with self.asking() as client:
            return "name=rootless" in (client.info().get("SecurityOptions") or ())
