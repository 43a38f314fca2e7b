"""The observation of an instance's stop while all others run: its remains, and its effects on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_nixproc._deployment.leftovers import Remains, end_all, left_behind
from pytest_nixproc._deployment.operation import Operation
from pytest_nixproc._inspection.answers import is_at, who_holds
from pytest_nixproc._planning.steps import Step
from pytest_nixproc._system.instance import RunningInstance
from pytest_nixproc._system.instance_runs import be_ready, instance_runs
from pytest_nixproc.checks.api import StopReport
from pytest_nixproc.checks.claims import Inventory
from pytest_nixproc.errors import DeploymentError, TeardownError
from pytest_nixproc.machines.shielding import verb
from pytest_nixproc.model.endpoint import Endpoint


class StopObserver:
    """The observer of an instance's stop, which compares the system before, during and after it.

    Raises :class:`~pytest_nixproc.errors.DeploymentError` when the instance is not ready before it is stopped.
    """

    def __init__(self, operation: Operation, instances: Mapping[str, RunningInstance], name: str) -> None:
        be_ready(instances[name])
        self.operation = operation
        self.instances = instances
        self.machine = operation.machine
        self.model = operation.context.model
        self.name = name
        self.remains = Remains(operation.observer, [name])
        snapshot = operation.snapshot()
        own = [listener for listener, owner in snapshot.owners.items() if owner == name]
        self.endpoints = {
            *self.model[name].endpoints,
            *(Endpoint.declared("", item.port, item.protocol, item.host) for item in own),
        }
        bound = {path for owner, process in snapshot.processes if owner == name for path in process.bound}
        inventory = Inventory.of(self.model, operation.plan.target)
        self.sockets = bound | {claim.resource for claim in inventory.sockets if claim.instance == name}
        told = [claim for file in inventory.referenced_pid_files() for claim in file.claims]
        self.pid_files = {claim.resource for claim in (*inventory.pid_files, *told) if claim.instance == name}
        self.instance_runs = {
            other: run for other, run in instance_runs(snapshot.statuses, self.machine).items() if other != name
        }
        self.dependants = {other for other in self.model if self.model.needs(other, name)}
        tcp = [
            (other, endpoint)
            for other in self.instance_runs
            for endpoint in self.model[other].endpoints
            if endpoint.protocol == "tcp"
        ]
        unanswered = operation.observer.unanswered(tcp, snapshot.statuses)
        self.answering = [entry for entry in tcp if entry not in unanswered]

    @verb
    def stop(self) -> None:
        """Stop the instance; what it leaves behind stays, to be reported, unless that is an error already.

        Raises :class:`~pytest_nixproc.errors.TeardownError` if force was needed.
        """
        if problems := self.operation.stop([Step("stop", self.name, (), "asked for by a check")]):
            left = self.operation.end_left_behind(self.remains.look)
            raise TeardownError([*problems, *left], f"{self.name} on {self.operation.context.manager}")

    @verb
    def end_left_behind(self) -> None:
        """End what the instance has left behind, which has been reported: it must not stand for the next run."""
        end_all(self.machine, self.remains.look)

    @verb
    def while_stopped(self) -> StopReport:
        """Return the report about the remains of the instance, and about the others that do not depend on it."""
        when = f"while {self.name} was stopped"
        left = left_behind(self.machine, self.remains.look)
        ended, unready = self._others(self.instance_runs.keys() - self.dependants)
        return StopReport(
            self.name,
            when,
            processes={pid: self.machine.processes.describe(pid) for pid in left},
            held=self._held(left),
            pid_files=self._existing(self.pid_files),
            sockets=self._existing(self.sockets),
            ended=ended,
            unready=unready,
        )

    @verb
    def when_back(self) -> StopReport:
        """Return the report about all others when the instance runs again."""
        ended, unready = self._others(self.instance_runs)
        return StopReport(self.name, f"when {self.name} was started again", ended=ended, unready=unready)

    def _held(self, left: Iterable[int]) -> dict[str, str]:
        """Return the ports of the instance that others hold; its own processes are reported themselves."""
        own = set(left)
        ports = {endpoint.port for endpoint in self.endpoints}
        everybody = self.machine.network.listeners(wanted=ports) if ports else []
        return {
            f"{item.protocol.upper()} port {item.port}": who_holds(self.machine, item.pid)
            for item in everybody
            if is_at(item, self.endpoints) and item.pid not in own
        }

    def _existing(self, paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(path for path in sorted(paths) if self.machine.files.exists(path))

    def _others(self, names: Iterable[str]) -> tuple[dict[str, int], dict[str, str]]:
        """Return which other instances have ended, and which of ``names`` run and are not ready, and why."""
        ended = self._ended()
        unready = self._unready(names)
        if unready:
            # One that was about to end is first seen as not ready.
            ended |= self._ended()
        return ended, {name: reason for name, reason in unready.items() if name not in ended}

    def _ended(self) -> dict[str, int]:
        """Return the instances that have another main process than before, or none; each is reported once."""
        now = instance_runs(self.operation.observer.statuses(), self.machine)
        ended = {name: run.pid for name, run in self.instance_runs.items() if now.get(name) != run}
        gone = {name: pid for name, pid in ended.items() if name not in self.dependants}
        self.instance_runs = {name: run for name, run in self.instance_runs.items() if name not in gone}
        return gone

    def _unready(self, names: Iterable[str]) -> dict[str, str]:
        """Return which instances are not ready, or do not answer on a port as they did, and why."""
        left = sorted(name for name in names if name in self.instance_runs)
        reasons = {name: reason for name in left if (reason := unready(self.instances[name]))}
        wanted = [(name, endpoint) for name, endpoint in self.answering if name in left and name not in reasons]
        statuses = self.operation.observer.statuses()
        for (name, endpoint), problem in self.operation.observer.unanswered(wanted, statuses).items():
            reasons.setdefault(name, f"{endpoint.text}: {problem}")
        return reasons


def unready(instance: RunningInstance) -> str:
    """Return why an instance cannot be used, or an empty text."""
    try:
        be_ready(instance)
    except DeploymentError as error:
        return error.brief
    return ""
