"""Systems that the workers of pytest-xdist share."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final, Self

from pytest_nixproc._deployment.problems import collect_problems
from pytest_nixproc._persistence.directory import default_state_root
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._persistence.recovery_command import recovery_command
from pytest_nixproc._persistence.shared_deployments import PytestRun, SharedDeployment, root_for
from pytest_nixproc._planning.planner import LoadModel, Planner
from pytest_nixproc._recovery import take_down
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.sources.loader import ModelLike

PATIENCE: Final = 4
"""How many times the start's limit a worker waits for another one that starts a shared system."""


class XdistSharing:
    """The part of one worker in a run whose workers share systems."""

    def __init__(self, leases: Leases, run: PytestRun) -> None:
        self.leases = leases
        self.run = run
        self.systems: dict[str, System] = {}
        """The shared systems that this worker uses, by their directory."""

    @classmethod
    def of_controller(cls, leases: Leases, run: str, machine: Machine) -> Self:
        """Return the controller's part: as a member it outlives all workers, also while one is being replaced.

        The machine's guardian does its part if it is killed.
        """
        machine.lifecycle.guard(f"run {run}", recovery_command(run, leases, "--run"))
        return cls.of_worker(leases, run)

    @classmethod
    def of_worker(cls, leases: Leases, run: str) -> Self:
        """Return the part of a worker."""
        part = cls(leases, PytestRun(leases, run))
        part.run.enter()
        return part

    def system(self, planner: Planner, model: str, load: LoadModel) -> System:
        """Return the system of a model: start it, or attach to it when another worker has."""
        parent = os.path.abspath(planner.settings.state_root or default_state_root())
        where = (planner.manager.name, planner.machine.name, planner.settings.privileged)
        root = root_for(parent, self.run.identity, *where, model, dict(planner.settings.params))
        if root not in self.systems:
            system = System(
                planner, self.leases, SharedDeployment(self.run, root, PATIENCE * planner.settings.start_seconds)
            )
            system.start(load)
            self.systems[root] = system
        return self.systems[root]

    def leave(self, registry: Registry) -> list[str]:
        """End the worker's part, and return the problems; the last worker takes everything down."""
        if self.run.me != ProcessIdentity.current():
            # A forked child, which is no member.
            return []
        roots = self.run.leave()
        problems: list[str] = []
        for root, system in self.systems.items():
            if root not in roots:
                system.detach()
        for root in roots:
            problems += collect_problems(partial(self._take_down, root, registry))
        return problems

    def _take_down(self, root: str, registry: Registry) -> list[str]:
        if root in self.systems:
            self.systems[root].stop()
        else:
            take_down(root, registry, self.leases)
        return []


def identity_of(model: ModelLike | None, directory: Path) -> str:
    """Return a text that identifies a model in all workers; raises for models without a name or a file."""
    if isinstance(model, str | os.PathLike):
        return str(directory / model)
    code = getattr(model, "__code__", None)
    if code is None or getattr(model, "__closure__", None) or hasattr(model, "__self__"):
        # Functions of the same code differ by what they close over or are bound to, which has no name.
        remedy = "give a path or a function, or do without --nixproc-share"
        raise NixprocError("objects, closures and methods cannot be shared by workers", remedy=remedy)
    return f"{code.co_filename}:{code.co_firstlineno}"
