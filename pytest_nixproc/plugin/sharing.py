"""Systems that the workers of pytest-xdist share."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final, Self

import pytest

from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.planner import Load, Planner
from pytest_nixproc.deployment.recovery import take_down
from pytest_nixproc.deployment.sharing import Run, Share, root_for
from pytest_nixproc.deployment.site import default_state_root
from pytest_nixproc.deployment.stopping import attempt
from pytest_nixproc.deployment.system import System
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.plugin import options
from pytest_nixproc.registry import Registry
from pytest_nixproc.sources.forms import ModelLike

PATIENCE: Final = 4
"""How many times the start's limit a worker waits for another one that starts a shared system."""


class Sharing:
    """The part of one worker in a run whose workers share systems."""

    def __init__(self, leases: Leases, run: Run) -> None:
        self.leases = leases
        self.run = run
        self.systems: dict[str, System] = {}
        """The shared systems that this worker uses, by their directory."""

    @classmethod
    def of_controller(cls, leases: Leases, run: str) -> Self:
        """Return the controller's part: as a member it outlives all workers, also while one is being replaced."""
        part = cls(leases, Run(leases, run))
        part.run.enter()
        return part

    @classmethod
    def of(cls, config: pytest.Config, leases: Leases) -> Self | None:
        """Return the worker's part, if this is a worker and it is to share."""
        worker = getattr(config, "workerinput", None)
        if worker is None or not options.read_flag(config, "share"):
            return None
        run = Run(leases, worker["testrunuid"])
        run.enter()
        return cls(leases, run)

    def system(self, planner: Planner, model: str, load: Load) -> System:
        """Return the system of a model: start it, or attach to it when another worker has."""
        parent = os.path.abspath(planner.settings.state_root or default_state_root())
        where = (planner.manager.name, planner.machine.name, planner.settings.privileged)
        root = root_for(parent, self.run.identity, *where, model, dict(planner.settings.params))
        if root not in self.systems:
            system = System(planner, self.leases, Share(self.run, root, PATIENCE * planner.settings.start_seconds))
            system.start(load)
            self.systems[root] = system
        return self.systems[root]

    def leave(self, registry: Registry) -> list[str]:
        """End the worker's part; the last worker takes everything down. Return what was not clean."""
        roots = self.run.leave()
        problems: list[str] = []
        for root, system in self.systems.items():
            if root not in roots:
                system.detach()
        for root in roots:
            problems += attempt(partial(self._take_down, root, registry))
        return problems

    def _take_down(self, root: str, registry: Registry) -> list[str]:
        if root in self.systems:
            self.systems[root].stop()
        else:
            take_down(root, registry, self.leases)
        return []


def identity_of(model: ModelLike | None, directory: Path) -> str:
    """Return what tells a model from others in all workers; models without a name or a file cannot be shared."""
    if isinstance(model, str | os.PathLike):
        return str(directory / model)
    code = getattr(model, "__code__", None)
    if code is None or getattr(model, "__closure__", None) or hasattr(model, "__self__"):
        # Functions of the same code differ by what they close over or are bound to, which has no name.
        remedy = "give a path or a function, or do without --nixproc-share"
        raise NixprocError("objects, closures and methods cannot be shared by workers", remedy=remedy)
    return f"{code.co_filename}:{code.co_firstlineno}"
