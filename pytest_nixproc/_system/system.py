"""The running system, as tests see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_nixproc._deployment.deployment import Deployment
from pytest_nixproc._deployment.timeline import Timeline
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._persistence.shared_deployments import SharedDeployment
from pytest_nixproc._planning.planner import LoadModel, Planner
from pytest_nixproc._system.instance import Handle, RunningInstance
from pytest_nixproc._system.stop_observer import StopObserver
from pytest_nixproc.errors import ConflictError, DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.loader import ModelLike
from pytest_nixproc.values.findings import Finding, errors_of
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Status


class System(Handle, Mapping[str, "RunningInstance"]):
    """A deployed system: running instances by name, in the order of their activation."""

    def __init__(self, planner: Planner, leases: Leases | None = None, share: SharedDeployment | None = None) -> None:
        self._deployment = Deployment(planner, leases or Leases(), share)
        self._handles: dict[str, RunningInstance] = {}

    # A system is itself, whatever it holds; Mapping would compare contents.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def start(self, load: LoadModel) -> None:
        """Deploy a model; the deployment calls this system ready only when all its instances are."""
        self._deployment.start(load, self)

    def stop(self) -> None:
        """Take the system down, with nothing left; harmless when it is down already."""
        self._deployment.stop()

    def abandon(self) -> None:
        """Leave everything as it is, for people to look at."""
        self._deployment.abandon()

    def detach(self) -> None:
        """Leave a shared system running for the other workers of the test run."""
        self._deployment.detach()

    def switch(self, model: ModelLike) -> None:
        """Upgrade to another model, given in any of its forms; only changed instances are restarted."""
        self.upgrade(self._deployment.planner.settings.model_loader.loader(model))

    def upgrade(self, load: LoadModel) -> None:
        """Upgrade to the model that a function loads for the system's place; only changed instances are restarted."""
        self._deployment.switch(load, self)

    def inspect(self) -> list[Finding]:
        """Inspect the running system now, and return the findings of the checks."""
        return self._deployment.judge.inspect()

    def check_ends(self) -> list[Finding]:
        """Return findings about instances that have ended by themselves since the last call."""
        # A machine that is down has ended everything, and is not asked.
        return self._deployment.judge.check_ends() if self._deployment.is_in_use else []

    def __getitem__(self, name: str) -> RunningInstance:
        if name not in self.model:
            raise KeyError(f"no instance {name!r}; the system has {', '.join(self)}")
        return self._handles.setdefault(name, RunningInstance(name, self._deployment.operation))

    def __iter__(self) -> Iterator[str]:
        return (name for level in self.model.levels for name in level)

    def __len__(self) -> int:
        return len(self.model)

    def __repr__(self) -> str:
        return f"<System of {', '.join(self)} on {self.manager.name} in {self.root}>"

    @property
    def model(self) -> ProcessesModel:
        """The model that is deployed."""
        return self._deployment.operation.plan.model

    @property
    def manager(self) -> Manager:
        """The process manager that runs it."""
        return self._deployment.planner.manager

    @property
    def machine(self) -> Machine:
        """The machine that it runs on."""
        return self._deployment.machine

    @property
    def state(self) -> StateDirs:
        """Its state directories."""
        return self._deployment.operation.plan.target.state

    @property
    def is_unprivileged(self) -> bool:
        """Whether its processes run as the calling user, even if they declare another."""
        return self._deployment.operation.plan.target.force_disable_user_change

    @property
    def root(self) -> str:
        """The directory of the deployment: state, generated files and journal."""
        return self._deployment.directory.root

    @property
    def timeline(self) -> Timeline:
        """The events of its instances, with their times."""
        return self._deployment.timeline

    @property
    def findings(self) -> Sequence[Finding]:
        """The findings of the checks so far; errors among them have been raised."""
        return self._deployment.operation.plan.findings

    @property
    def is_deployed(self) -> bool:
        """Tell whether the system is up."""
        return self._deployment.is_deployed

    def assert_no_conflicts(self) -> None:
        """Inspect the running system; raises :class:`~pytest_nixproc.errors.ConflictError` if anything is wrong.

        Instances that a test has stopped count as wrong: start them again first.
        """
        self._deployment.judge.assert_no_conflicts()

    def restart_alone(self, name: str) -> list[Finding]:
        """Stop an instance and start it again; return findings about its remains and its effects on others.

        Others have to keep their processes, and stay ready; those that depend on it have to be ready only when it is
        back. Raises :class:`~pytest_nixproc.errors.DeploymentError` when it is not ready before,
        :class:`~pytest_nixproc.errors.ConflictError` when what it has left keeps it from starting, and what
        :meth:`RunningInstance.stop` and :meth:`RunningInstance.start` raise.
        """
        observer = StopObserver(self._deployment.operation, self, name)
        findings: list[Finding] = []
        try:
            observer.stop()
            findings += self._deployment.judge.check_stop(observer.while_stopped())
        finally:
            observer.end_left_behind()
            start_again(self[name], findings)
        return findings + self._deployment.judge.check_stop(observer.when_back())

    def assert_stops_alone(self, name: str) -> None:
        """Restart an instance; raises :class:`~pytest_nixproc.errors.ConflictError` if it leaves or disturbs anything.

        Warnings, like a socket that is left, are among :attr:`findings` afterwards.
        """
        if errors := errors_of(self.restart_alone(name)):
            raise ConflictError(f"{name} cannot be stopped and started alone", errors)

    def statuses(self) -> dict[str, Status]:
        """Return the statuses of all instances, by one request to the manager."""
        return self._deployment.operation.statuses()

    def log_places(self) -> dict[str, str]:
        """Return where each instance's log can be read: a file, or the command that its manager has for that."""
        return {name: unit.log_file for name, unit in self._deployment.operation.context.units.items()}

    def log_sizes(self) -> dict[str, int]:
        """Return how much each instance has logged, in bytes: a position for :meth:`logs_since`."""
        return self._deployment.operation.log_sizes()

    def logs_since(self, sizes: Mapping[str, int]) -> dict[str, str]:
        """Return the log of each instance since :meth:`log_sizes`."""
        return self._deployment.operation.logs_since(sizes)


def start_again(instance: RunningInstance, findings: Sequence[Finding]) -> None:
    """Start an instance; where it does not start, the findings made while it was stopped are the reason."""
    try:
        instance.start()
    except DeploymentError as error:
        if errors := errors_of(findings):
            raise ConflictError(f"{instance.name} cannot be started again", errors) from error
        raise
