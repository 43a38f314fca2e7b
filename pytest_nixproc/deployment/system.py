"""The running system, as tests see it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pytest_nixproc.checks.api import Finding, errors_of
from pytest_nixproc.deployment.departure import Witness
from pytest_nixproc.deployment.engine import Deployment
from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.observation import pid_file_of
from pytest_nixproc.deployment.plan import Step
from pytest_nixproc.deployment.planner import Load, Planner
from pytest_nixproc.deployment.sharing import Share
from pytest_nixproc.deployment.stopping import all_ended
from pytest_nixproc.deployment.timeline import Timeline
from pytest_nixproc.errors import ConflictError, DeploymentError, NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.managers.api import Manager, Status
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.forms import ModelLike

ASKED_BY_TEST = "asked for by a test"


class System(Mapping[str, "RunningInstance"]):
    """A deployed system: running instances by name, in the order of their activation."""

    def __init__(self, planner: Planner, leases: Leases | None = None, share: Share | None = None) -> None:
        self._deployment = Deployment(planner, lambda _: self, leases or Leases(), share)
        self._handles: dict[str, RunningInstance] = {}

    # A system is itself, whatever it holds; Mapping would compare contents.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def start(self, load: Load) -> None:
        """Deploy a model; the engine calls this system ready only when all its instances are."""
        self._deployment.start(load)

    def stop(self) -> None:
        """Take the system down, with nothing left; harmless when it is down already."""
        self._deployment.stop()

    def abandon(self) -> None:
        """Leave everything as it is, for people to look at."""
        self._deployment.abandon()

    def detach(self) -> None:
        """Leave a shared system to the other members of the run."""
        self._deployment.detach()

    def switch(self, model: ModelLike) -> None:
        """Upgrade to another model, given in any of its forms; only what has changed is restarted."""
        self.upgrade(self._deployment.planner.settings.forms.loader(model))

    def upgrade(self, load: Load) -> None:
        """Upgrade to what a function loads, when it is told about the place; only what has changed is restarted."""
        self._deployment.switch(load)

    def inspect(self) -> list[Finding]:
        """Look at the running system, and return what the checks find in it now."""
        return self._deployment.inspect()

    def __getitem__(self, name: str) -> RunningInstance:
        if name not in self.model:
            raise KeyError(f"no instance {name!r}; the system has {', '.join(self)}")
        return self._handles.setdefault(name, RunningInstance(name, self._deployment))

    def __iter__(self) -> Iterator[str]:
        return (name for level in self.model.levels for name in level)

    def __len__(self) -> int:
        return len(self.model)

    def __repr__(self) -> str:
        return f"<System of {', '.join(self)} on {self.manager.name} in {self.root}>"

    @property
    def model(self) -> ProcessesModel:
        """The model that is deployed."""
        return self._deployment.draft.model

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
        return self._deployment.draft.target.state

    @property
    def is_unprivileged(self) -> bool:
        """Whether its processes run as the calling user, whatever user they declare."""
        return self._deployment.draft.target.force_disable_user_change

    @property
    def root(self) -> str:
        """The directory of the deployment: state, generated files and journal."""
        return self._deployment.site.root

    @property
    def timeline(self) -> Timeline:
        """What happened to its instances, and when."""
        return self._deployment.timeline

    @property
    def findings(self) -> Sequence[Finding]:
        """What the checks have found so far; errors among them have been raised."""
        return self._deployment.draft.findings

    @property
    def is_deployed(self) -> bool:
        """Tell whether the system is up."""
        return self._deployment.is_deployed

    def assert_no_conflicts(self) -> None:
        """Look at the running system and raise :class:`~pytest_nixproc.errors.ConflictError` if anything is wrong.

        Instances that a test has stopped count as wrong: start them again first.
        """
        self._deployment.assert_no_conflicts()

    def restart_alone(self, name: str) -> list[Finding]:
        """Stop an instance and start it again, and return what the checks find in what that leaves and disturbs.

        Others have to keep their processes, and stay ready; those that depend on it have to be ready only when it is
        back. Raises :class:`~pytest_nixproc.errors.DeploymentError` when it is not ready before,
        :class:`~pytest_nixproc.errors.ConflictError` when what it has left keeps it from starting, and what
        :meth:`RunningInstance.stop` and :meth:`RunningInstance.start` raise.
        """
        witness = Witness(self._deployment, name)
        findings: list[Finding] = []
        try:
            self[name].stop()
            findings += self._deployment.judge(witness.while_stopped())
        finally:
            self._start_again(name, findings)
        return findings + self._deployment.judge(witness.when_back())

    def _start_again(self, name: str, findings: Sequence[Finding]) -> None:
        """Start an instance; where it does not start, what was found while it was stopped is the reason."""
        try:
            self[name].start()
        except DeploymentError as error:
            if errors := errors_of(findings):
                raise ConflictError(f"{name} cannot be started again", errors) from error
            raise

    def assert_stops_alone(self, name: str) -> None:
        """Restart an instance; raises :class:`~pytest_nixproc.errors.ConflictError` if it leaves or disturbs anything.

        Warnings, like a socket that is left, are among :attr:`findings` afterwards.
        """
        if errors := errors_of(self.restart_alone(name)):
            raise ConflictError(f"{name} cannot be stopped and started alone", errors)

    def statuses(self) -> dict[str, Status]:
        """Ask the manager about all instances at once."""
        return self._deployment.statuses()

    def log_places(self) -> dict[str, str]:
        """Return where each instance's log can be read: a file, or the command that its manager has for that."""
        return {name: unit.log_file for name, unit in self._deployment.draft.profile.units.items()}

    def log_sizes(self) -> dict[str, int]:
        """Return how much each instance has logged, in bytes: a position for :meth:`logs_since`."""
        units = self._deployment.draft.profile.units
        return {name: self._deployment.driver.log_size(unit) for name, unit in units.items()}

    def logs_since(self, sizes: Mapping[str, int]) -> dict[str, str]:
        """Return what each instance has logged since :meth:`log_sizes`."""
        units = self._deployment.draft.profile.units
        return {name: self._deployment.driver.log(unit, sizes.get(name, 0)) for name, unit in units.items()}


class RunningInstance:
    """One instance of a running system; the attributes of the model's instance can be read from it."""

    def __init__(self, name: str, deployment: Deployment) -> None:
        self.name = name
        self._deployment = deployment

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(self._deployment.draft.model[self.name], attribute)

    def __repr__(self) -> str:
        return f"<RunningInstance {self.name!r}>"

    @property
    def url(self) -> str:
        """``http://HOST:PORT`` of its ``port``, or of the only port it declares, as the tests reach it.

        That is ``127.0.0.1`` and the port itself, unless its machine has a network of its own.
        """
        ports = self._deployment.draft.model[self.name].declared_ports
        if "port" not in ports and len(ports) != 1:
            raise NixprocError(f"{self.name} has no single port to make a URL of", remedy="declare 'port'")
        host, port = self._deployment.machine.address(ports.get("port") or next(iter(ports.values())))
        return f"http://{host}:{port}"

    @property
    def status(self) -> Status:
        """What the manager says about it now."""
        return self._deployment.status_of(self.name)

    @property
    def is_running(self) -> bool:
        """Tell whether its process runs now."""
        return self.status.running

    @property
    def pid(self) -> int | None:
        """Its main process; None when it does not run."""
        status = self.status
        return status.pid if status.running else None

    @property
    def pids(self) -> list[int]:
        """All its processes, the main one first; empty when it does not run."""
        return self._deployment.pids_of(self.name)

    @property
    def pid_file(self) -> str:
        """Where its PID file is, if it has one: the same under every manager, but for overrides."""
        draft = self._deployment.draft
        return pid_file_of(self._deployment.unit(self.name), draft.model[self.name].pkg, draft.target)

    @property
    def listening(self) -> set[int]:
        """The TCP ports that its processes listen on."""
        return self._deployment.ports_of(self.name)

    @property
    def log(self) -> str:
        """Everything it has written to its standard output and error."""
        return self._deployment.driver.log(self._deployment.unit(self.name))

    def start(self) -> None:
        """Start it and wait until it is ready; raises :class:`~pytest_nixproc.errors.StartError`."""
        self._deployment.carry_out(Step("start", (self.name,), ASKED_BY_TEST))
        self._deployment.status_of(self.name)

    def stop(self) -> None:
        """Stop it and wait for its end; raises :class:`~pytest_nixproc.errors.TeardownError` if force was needed."""
        self._deployment.status_of(self.name)
        self._deployment.carry_out(Step("stop", (self.name,), ASKED_BY_TEST))

    def restart(self) -> None:
        """Stop it if it runs, and start it, even if it had to be killed; raises what both do."""
        try:
            if self.is_running:
                self.stop()
        finally:
            self.start()

    def reload(self) -> None:
        """Ask it to read its configuration again, in its manager's way (usually SIGHUP)."""
        seconds = self._deployment.planner.settings.stop_seconds
        self._deployment.driver.reload(self._deployment.unit(self.name), self._deployment.machine.deadline(seconds))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to its main process, behind its manager's back; with SIGKILL, wait until it has ended."""
        pid = self.pid
        if pid is None:
            raise NixprocError(f"{self.name} does not run")
        machine = self._deployment.machine
        machine.ended([pid])
        machine.signal(pid, number)
        if number == signal.SIGKILL:
            all_ended(machine, [pid], machine.deadline(self._deployment.planner.settings.stop_seconds))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for the time of a ``with`` block, and start it again, even if it had to be killed."""
        try:
            self.stop()
            yield
        finally:
            self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Freeze all its processes (SIGSTOP) for the time of a ``with`` block."""
        pids = self.pids
        machine = self._deployment.machine
        for pid in pids:
            machine.signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                machine.signal(pid, signal.SIGCONT)

    def wait_for_log(self, pattern: str, *, timeout: float = 60) -> None:
        """Wait until a regular expression is found in a line of its log; managers may write one a moment later."""
        what = f"wait for a line of {self.name}'s log with {pattern!r}"
        deadline = self._deployment.machine.deadline(timeout)
        wait_until(lambda: "" if re.search(pattern, self.log, re.MULTILINE) else "it is not there", deadline, what)

    def wait_ready(self) -> None:
        """Wait until it is ready, after something that it has to recover from."""
        self._deployment.await_ready(self.name)
