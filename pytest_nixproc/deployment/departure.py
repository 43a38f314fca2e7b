"""The stop of one instance while all others run: what it leaves, and what it does to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_nixproc.checks.api import Departure
from pytest_nixproc.checks.claims import Inventory
from pytest_nixproc.deployment.engine import Deployment
from pytest_nixproc.deployment.observation import who_holds
from pytest_nixproc.deployment.stopping import all_ended
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Status
from pytest_nixproc.model.instance import Endpoint

LEFT_SECONDS: Final = 1.0
"""How long processes of a stopped instance may still take: whoever ended last may not have been waited for yet."""

LOCAL: Final = "127.0.0.1"


@dataclass(frozen=True)
class Life:
    """One run of an instance: its main process, and what tells that from a later one with its pid."""

    pid: int
    identity: str


def lives(statuses: Mapping[str, Status], machine: Machine) -> dict[str, Life]:
    """Return the runs of all instances that run now."""
    pids = {name: status.pid for name, status in statuses.items() if status.running and status.pid}
    return {name: Life(pid, machine.identity(pid)) for name, pid in pids.items()}


def be_ready(deployment: Deployment, name: str) -> None:
    """Raise :class:`~pytest_nixproc.errors.DeploymentError` unless an instance runs and its condition holds."""
    status = deployment.status_of(name)
    if not status.running:
        raise DeploymentError(f"{name} does not run: {status.text}")
    deployment.await_ready(name)


class Witness:
    """Looks at a system before an instance is stopped, and says what has become of it and of the others since.

    Raises :class:`~pytest_nixproc.errors.DeploymentError` when the instance is not ready before it is stopped.
    """

    def __init__(self, deployment: Deployment, name: str) -> None:
        be_ready(deployment, name)
        self.deployment = deployment
        self.machine = deployment.machine
        self.model = deployment.draft.model
        self.name = name
        self.pids = deployment.pids_of(name)
        snapshot = deployment.snapshot()
        own = {(listener.protocol, listener.port) for listener, owner in snapshot.owners.items() if owner == name}
        self.ports = own | {(endpoint.protocol, endpoint.port) for endpoint in self.model[name].endpoints}
        bound = {path for owner, sight in snapshot.sights if owner == name for path in sight.bound}
        inventory = Inventory.of(self.model, deployment.draft.target)
        self.sockets = bound | {claim.resource for claim in inventory.sockets if claim.instance == name}
        told = [claim for file in inventory.told_pid_files() for claim in file.claims]
        self.pid_files = {claim.resource for claim in (*inventory.pid_files, *told) if claim.instance == name}
        self.lives = {other: life for other, life in lives(snapshot.statuses, self.machine).items() if other != name}
        self.dependants = {other for other in self.model if self.model.needs(other, name)}
        self.answering = {other: list(self._answering(other)) for other in self.lives}

    def _answering(self, name: str) -> Iterable[Endpoint]:
        """Yield the TCP ports of an instance that accept connections."""
        endpoints = (endpoint for endpoint in self.model[name].endpoints if endpoint.protocol == "tcp")
        return (endpoint for endpoint in endpoints if not self._problem(endpoint))

    def _problem(self, endpoint: Endpoint) -> str:
        return self.machine.connection_problem((endpoint.address or LOCAL, endpoint.port))

    def while_stopped(self) -> Departure:
        """Say what is left of the instance, and how those are that do not depend on it."""
        when = f"while {self.name} was stopped"
        left = self._processes()
        return Departure(
            self.name,
            when,
            processes={pid: self.machine.describe(pid) for pid in left},
            held=self._held(left),
            pid_files=self._existing(self.pid_files),
            sockets=self._existing(self.sockets),
            ended=self._ended(),
            unready=self._unready(self.lives.keys() - self.dependants),
        )

    def when_back(self) -> Departure:
        """Say how all others are when the instance runs again."""
        when = f"when {self.name} was started again"
        return Departure(self.name, when, ended=self._ended(), unready=self._unready(self.lives))

    def _processes(self) -> list[int]:
        """Return the processes of the instance that do not end, with those that its stop has started."""
        pids = list(dict.fromkeys([*self.pids, *self.deployment.left_of(self.name)]))
        all_ended(self.machine, pids, self.machine.deadline(LEFT_SECONDS))
        return sorted(set(pids) - self.machine.ended(pids))

    def _held(self, left: Iterable[int]) -> dict[str, str]:
        """Return the ports of the instance that others hold; what its own processes hold is told by those."""
        own = set(left)
        everybody = self.machine.listeners(wanted={port for _, port in self.ports}) if self.ports else []
        return {
            f"{item.protocol.upper()} port {item.port}": who_holds(self.machine, item.pid)
            for item in everybody
            if (item.protocol, item.port) in self.ports and item.pid not in own
        }

    def _existing(self, paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(path for path in sorted(paths) if self.machine.exists(path))

    def _ended(self) -> dict[str, int]:
        """Return which instances have another main process than before, or none; of each it is told once."""
        now = lives(self.deployment.statuses(), self.machine)
        ended = {name: life.pid for name, life in self.lives.items() if now.get(name) != life}
        gone = {name: pid for name, pid in ended.items() if name not in self.dependants}
        self.lives = {name: life for name, life in self.lives.items() if name not in gone}
        return gone

    def _unready(self, names: Iterable[str]) -> dict[str, str]:
        """Return which instances are not ready, or do not answer on a port as they did, and why."""
        reasons = {name: self._reason(name) for name in sorted(names) if name in self.lives}
        return {name: reason for name, reason in reasons.items() if reason}

    def _reason(self, name: str) -> str:
        try:
            be_ready(self.deployment, name)
        except DeploymentError as error:
            return error.brief
        problems = {endpoint.text: self._problem(endpoint) for endpoint in self.answering[name]}
        return next((f"{text}: {problem}" for text, problem in problems.items() if problem), "")
