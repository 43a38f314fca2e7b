"""The deployment of models for tests, and their teardown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._planning.other_deployments import rehearse
from pytest_nixproc._planning.planner import LoadModel, Planner
from pytest_nixproc._plugin import options
from pytest_nixproc._plugin.ends import ends_of_scope, error_about
from pytest_nixproc._plugin.matrix import PRIVILEGED, Point
from pytest_nixproc._plugin.reporting import note_failure
from pytest_nixproc._plugin.session import Session, session_of
from pytest_nixproc._plugin.sharing import identity_of
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.loader import ModelLike, ModelLoader


class Planned(Exception):
    """Raised in place of a deployment under ``--nixproc-plan``."""


class Deployer:
    """The deployer of a session's systems."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.config = session.config

    @contextmanager
    def used(self, point: Point, machine: Machine, model: ModelLike | None, directory: Path) -> Iterator[System]:
        """Deploy the model of a fixture for the time of a ``with`` block, or share it with the other workers."""
        load = self.load(model, directory)
        if self.session.sharing is None or options.read_flag(self.config, "plan"):
            with self.deployed(point, machine, load, directory=directory) as system:
                yield system
            return
        self.session.reap_abandoned()
        with self.session.signals.handled(), self.session.findings.conflicts_noted():
            planner = self.planner(point, machine, directory=directory)
            system = self.session.sharing.system(planner, identity_of(model, directory), load)
        with self._in_use(system, self._put_aside):
            yield system

    @contextmanager
    def deployed(
        self,
        point: Point,
        machine: Machine,
        load: LoadModel,
        params: Mapping[str, Any] | None = None,
        directory: Path = Path(),
        *,
        tolerant: bool = False,
    ) -> Iterator[System]:
        """Deploy a model for the time of a ``with`` block; a ``tolerant`` deployment goes on despite live conflicts.

        Paths of models that it is upgraded to are relative to ``directory``. Raises
        :class:`~pytest_nixproc.errors.NixprocError`, and :class:`Planned` under ``--nixproc-plan``.
        """
        planner = self.planner(point, machine, params, directory, tolerant=tolerant)
        if options.read_flag(self.config, "plan"):
            plan = rehearse(planner, load, self.session.leases)
            self.session.planned.append((point, plan))
            self.session.findings.note(plan.findings)
            raise Planned
        self.session.reap_abandoned()
        system = System(planner, self.session.leases)
        with self.session.signals.handled():
            with self.session.findings.conflicts_noted():
                system.start(load)
            with self._in_use(system, self._end):
                yield system

    @contextmanager
    def _in_use(self, system: System, finish: Callable[[System], None]) -> Iterator[None]:
        """Have tests use a system for the time of a ``with`` block, and finish with it.

        Raises :class:`~pytest_nixproc.errors.ConflictError` for instances that have ended by themselves, unless the
        block has failed already: its report shows them then.
        """
        self.session.live[system] = {}
        error: NixprocError | None = None
        try:
            yield
            if ended := ends_of_scope(self.session, system):
                error = error_about(ended)
                note_failure(self.session, system)
        finally:
            try:
                finish(system)
            except NixprocError as problem:
                if error is None:
                    raise
                error.add_note(str(problem))
        if error is not None:
            raise error

    def _put_aside(self, system: System) -> None:
        """Remove a system from those that tests use, and add its findings to the session's."""
        del self.session.live[system]
        self.session.findings.note(system.findings)
        self.session.findings.tell(*system.findings)

    def _end(self, system: System) -> None:
        """Take a system down, unless it is to be kept."""
        self._put_aside(system)
        keep = options.read(self.config, "keep")
        if keep == "always" or (keep == "failed" and system in self.session.failed):
            system.abandon()
            self.session.kept.append(system)
        else:
            system.stop()

    def preview(self, point: Point, load: LoadModel) -> ProcessesModel:
        """Return the model of a point, only to inspect it: nothing is started, leased or booted."""
        with self.session.unbooted(point) as machine:
            return self.planner(point, machine).preview(load)

    def planner(
        self,
        point: Point,
        machine: Machine,
        params: Mapping[str, Any] | None = None,
        directory: Path = Path(),
        *,
        tolerant: bool = False,
    ) -> Planner:
        """Return a planner for a point; params of a call win over the marker's, and those over the options'."""
        merged = {**self.session.settings.params, **point.params, **(params or {})}
        root = machine.spec.directory or self.session.settings.state_root
        privileged = point.profile == PRIVILEGED
        settings = replace(
            self.session.settings,
            params=merged,
            state_root=root,
            privileged=privileged,
            tolerant=tolerant,
            model_loader=self.model_loader(directory),
        )
        registry = self.session.registry
        return Planner(point.manager, machine, registry.rules, settings, registry.manager_names)

    def load(self, model: ModelLike | None, directory: Path) -> LoadModel:
        """Return the function that loads a model given in any of its forms; paths are relative to ``directory``."""
        if model is None:
            remedy = "give --nixproc-model=PATH, mark the test with nixproc(model=...), or override nixproc_model"
            raise NixprocError("there is no model to deploy", remedy=remedy)
        return self.model_loader(directory).loader(model)

    def model_loader(self, directory: Path) -> ModelLoader:
        """Return the loader of models whose paths are relative to a directory."""
        return ModelLoader(self.session.registry.sources, str(directory))


def deployer_of(config: pytest.Config) -> Deployer:
    """Return the deployer for the tests of a pytest process."""
    return Deployer(session_of(config))
