"""The connection of one deployment to its engine: always to the same one, which is never waited for too long."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

from pytest_nixproc.errors import NixprocError, Unreachable
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

STARTERS: Final = 8
STOPPERS: Final = 32
"""How many requests at once: starting keeps the engine busy, stopping mostly waits for programs."""

Item = TypeVar("Item")


class Connection:
    """Clients of one engine; a record says which it is, for whoever takes the deployment down."""

    def __init__(self, machine: Machine, record: str) -> None:
        self.machine = machine
        self.record = record
        self.owes_answers = False
        """Whether an answer was owed at some time: what was asked for then may still be done."""

        self.is_ours_alone = False
        """Whether nobody but us has asked the engine for anything, and we know of all that."""

        self._clients: dict[int, DockerClient] = {}
        self._connecting = Lock()
        self._patience = LOAD_SECONDS

    def open(self) -> None:
        """Connect to the engine that the environment leads to, and record it."""
        self._environment = settings(os.environ)
        with self.asking():
            self.machine.files.write(self.record, json.dumps(self._environment), 0o600)
        self.is_ours_alone = True

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            client.close()

    @property
    def is_recorded(self) -> bool:
        """Tell whether the deployment has ever connected to an engine."""
        return self.machine.files.exists(self.record)

    @property
    def address(self) -> str:
        """The address of the engine, as a URL."""
        return address(self._environment)

    @cached_property
    def _environment(self) -> Mapping[str, str]:
        """The variables that lead to the engine of this deployment."""
        record = self.machine.files.read(self.record)
        return os.environ if record is None else json.loads(record)

    def _client(self, seconds: int) -> DockerClient:
        """Return the client with a time limit; the first client alone asks the engine for its version."""
        with self._connecting:
            if seconds not in self._clients:
                others = [other.api.api_version for other in self._clients.values()]
                self._clients[seconds] = connect(self._environment, seconds, *others[:1])
            return self._clients[seconds]

    @contextmanager
    def asking(self, seconds: int = LOOK_SECONDS) -> Iterator[DockerClient]:
        """Yield a client; after a request that got no answer, the next ones have a shorter time limit."""
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

    def side_by_side(self, width: int, action: Callable[[Item], object], items: Mapping[str, Item]) -> dict[str, str]:
        """Apply an action to several items at the same time; return error texts, by name.

        When we are interrupted, what was not begun is not done, and what was begun is waited for: nothing may be made
        behind the back of whoever takes the deployment down.
        """
        pool = ThreadPoolExecutor(width)
        try:
            futures = {name: pool.submit(action, item) for name, item in items.items()}
            wait(futures.values())
        except BaseException:
            self.is_ours_alone = False
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        problems = {name: problem_of(future) for name, future in futures.items()}
        return {name: problem for name, problem in problems.items() if problem}

    @cached_property
    def is_rootless(self) -> bool:
        """Whether the engine runs as an ordinary user, who is root in its containers."""
        with self.asking() as client:
            return "name=rootless" in (client.info().get("SecurityOptions") or ())


def problem_of(future: Future[object]) -> str:
    """Return the error text of an action, or an empty one; raises where the engine does not answer."""
    from docker.errors import APIError

    try:
        future.result()
    except APIError as error:
        return str(error.explanation or error)
    except Unreachable:
        raise
    except NixprocError as error:
        return str(error)
    return ""
