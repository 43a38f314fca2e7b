"""What one pytest process has deployed, and with which settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc.checks.api import Finding, Rule, chosen, errors_of
from pytest_nixproc.deployment.assigner import Assigner
from pytest_nixproc.deployment.booting import booted
from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.neighbours import living
from pytest_nixproc.deployment.planner import Draft, Load, Planner, Settings
from pytest_nixproc.deployment.recovery import reap, recovery_command, take_over
from pytest_nixproc.deployment.stopping import attempt
from pytest_nixproc.deployment.system import System
from pytest_nixproc.errors import ConflictError, NixprocError, SourceError
from pytest_nixproc.machines.api import Machine, Place
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.plugin import options
from pytest_nixproc.plugin.matrix import PRIVILEGED, Matrix, Point
from pytest_nixproc.plugin.sharing import Sharing, identity_of
from pytest_nixproc.plugin.signals import Signals
from pytest_nixproc.registry import Registry
from pytest_nixproc.sources.constructors import Constructor, Trial
from pytest_nixproc.sources.forms import Forms, ModelLike
from pytest_nixproc.sources.python import call, constructor_of

KEY: pytest.StashKey[Systems] = pytest.StashKey()


class Planned(Exception):
    """Raised in place of a deployment under ``--nixproc-plan``."""


class Systems:
    """The systems of one pytest process: makes them, knows which are up, and closes the machines at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.registry = Registry()
        self.matrix = Matrix(config, self.registry)
        self.live: dict[System, dict[str, int]] = {}
        """Systems that are up, each with the sizes of its logs when the current test began."""
        self.failed: set[System] = set()
        self.noted: list[tuple[str, str]] = []
        """Sections for the report of the current test."""
        self.kept: list[System] = []
        self.planned: list[tuple[Point, Draft]] = []
        self.warnings: dict[str, None] = {}
        self.findings: dict[str, Finding] = {}
        """Everything that the checks have found, by its text."""
        self.problems: list[str] = []
        """What was not clean when shared systems were taken down."""
        self.leases = Leases()
        self.signals = Signals()
        self._machines: dict[str, Machine] = {}
        self._reaped = False
        self.sharing = Sharing.of(config, self.leases)

    def machine(self, name: str) -> Machine:
        """Return a machine that is no throwaway one, made when it is asked for first."""
        if name not in self._machines:
            self._machines[name] = self.registry.machine(name)()
        return self._machines[name]

    @contextmanager
    def machine_at(self, point: Point) -> Iterator[Machine]:
        """Return the machine of a point; a throwaway one is booted for the time of the ``with`` block.

        Raises :class:`~pytest_nixproc.errors.NixprocError`. Under ``--nixproc-plan``, none is booted.
        """
        kind = self.registry.machine(point.machine)
        if not kind.throwaway or options.read_flag(self.config, "plan"):
            with self.unbooted(point) as machine:
                yield machine
        else:
            self.reap_abandoned()
            boot = booted(kind, self.leases, self.settings, private_network=point.private_network)
            with self.signals.handled(), boot as machine:
                yield machine

    def control_run(self, run: str) -> None:
        """Become a member, as the controller, of the run of pytest-xdist; a guardian does its part if it is killed."""
        if self.sharing is None:
            self.machine(options.read(self.config, "machine")).guard(f"run {run}", recovery_command(run, "--run"))
            self.sharing = Sharing.of_controller(self.leases, run)

    def leave_run(self) -> list[str]:
        """End our part in the run; what was not clean on the controller is a problem of the session."""
        assert self.sharing is not None, "only members leave"
        sharing, self.sharing = self.sharing, None
        problems = sharing.leave(self.registry)
        if not hasattr(self.config, "workerinput"):
            self.machine(options.read(self.config, "machine")).unguard(f"run {sharing.run.identity}")
            self.problems += problems
        return problems

    def close(self) -> None:
        """Close the machines; what still runs below them ends with them."""
        for machine in self._machines.values():
            machine.close()

    @cached_property
    def settings(self) -> Settings:
        """The settings that the options ask for."""
        return Settings(
            state_root=options.read(self.config, "state-root") or None,
            start_seconds=options.read_seconds(self.config, "start-timeout"),
            stop_seconds=options.read_seconds(self.config, "stop-timeout"),
            selected_rules=frozenset(options.read_names(self.config, "select")),
            ignored_rules=frozenset(options.read_names(self.config, "ignore")),
            params=options.read_params(self.config),
            keep_failed=options.read(self.config, "keep") != "never",
            progress=self.report_progress,
            uninterrupted=self.signals.held_back,
            build_seconds=options.read_seconds(self.config, "build-timeout"),
            may_download=options.read_flag(self.config, "download"),
            cache=cache_of(self.config),
            id_resources=options.read_path(self.config, "id-resources"),
            ids_file=options.read_path(self.config, "ids"),
        )

    @property
    def rules(self) -> list[Rule]:
        """The rules that the options choose."""
        return chosen(self.registry.rules, self.settings.selected_rules, self.settings.ignored_rules)

    def refuse_unknown_rules(self) -> None:
        """Raise a usage error for codes that no rule has."""
        try:
            _ = self.rules
        except NixprocError as error:
            raise pytest.UsageError(str(error)) from error

    def note(self, findings: Iterable[Finding]) -> None:
        """Take findings into the report of all; the same one of several systems is one."""
        self.findings.update((str(finding), finding) for finding in findings)

    def report_progress(self, text: str) -> None:
        """Write a line to the terminal in the middle of a test; silent on an xdist worker, which has none."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"nixproc: {text}")

    @contextmanager
    def used(self, point: Point, machine: Machine, model: ModelLike | None, directory: Path) -> Iterator[System]:
        """Deploy the model of a fixture for the time of a ``with`` block, or share it with the other workers."""
        load = self.load(model, directory)
        if self.sharing is None or options.read_flag(self.config, "plan"):
            with self.deployed(point, machine, load, directory=directory) as system:
                yield system
            return
        self.reap_abandoned()
        with self.signals.handled(), self._conflicts_noted():
            planner = self.planner(point, machine, directory=directory)
            system = self.sharing.system(planner, identity_of(model, directory), load)
        self.live[system] = {}
        try:
            yield system
        finally:
            self._put_aside(system)

    @contextmanager
    def deployed(
        self,
        point: Point,
        machine: Machine,
        load: Load,
        params: Mapping[str, Any] | None = None,
        directory: Path = Path(),
        *,
        tolerant: bool = False,
    ) -> Iterator[System]:
        """Deploy a model for the time of a ``with`` block; ``tolerant``: whatever is found in the running system.

        Paths of models that it is upgraded to are relative to ``directory``. Raises
        :class:`~pytest_nixproc.errors.NixprocError`, and :class:`Planned` under ``--nixproc-plan``.
        """
        planner = self.planner(point, machine, params, directory, tolerant=tolerant)
        if options.read_flag(self.config, "plan"):
            draft = self._plan(planner, load)
            self.planned.append((point, draft))
            self.note(draft.findings)
            raise Planned
        self.reap_abandoned()
        system = System(planner, self.leases)
        with self.signals.handled():
            with self._conflicts_noted():
                system.start(load)
            self.live[system] = {}
            try:
                yield system
            finally:
                self._end(system)

    def preview(self, point: Point, load: Load) -> ProcessesModel:
        """Load a model for a point, to see what it holds; nothing is started, leased or booted."""
        with self.unbooted(point) as machine:
            return self.planner(point, machine).preview(load)

    def check_constructor(self, point: Point, trial: Trial) -> None:
        """Hold the rules about constructors against one; raises :class:`~pytest_nixproc.errors.ConflictError`.

        Warnings are told at the end of the session.
        """
        with self.unbooted(point) as machine:
            findings = self.planner(point, machine).constructor_findings(trial)
        self.note(findings)
        errors = errors_of(findings)
        self.warnings.update({str(finding): None for finding in findings if finding not in errors})
        if errors:
            brief = f"instances of {trial.constructor.name} would be in each other's way"
            raise ConflictError(brief, errors)

    def constructor(self, point: Point, constructor: str | Callable[..., Any], directory: Path) -> Constructor:
        """Return a constructor that is given as a function, or as ``FILE:NAME`` relative to a directory."""
        if callable(constructor):
            return constructor_of(constructor)
        file, colon, name = constructor.rpartition(":")
        path = str(directory / file)
        readers = [source.constructor for source in self.registry.sources if file.endswith(source.suffixes)]
        if not colon or not any(readers):
            raise SourceError(f"{constructor!r} names no constructor", remedy="write FILE:NAME, such as lib.py:server")
        if not os.path.isfile(path):
            raise SourceError(f"there is no file {path}", remedy="check the path of the constructor")
        with self.unbooted(point) as machine:
            planner = self.planner(point, machine)
            arguments = planner.arguments(planner.choose_site())
            made: Constructor = next(reader for reader in readers if reader)(path, name, arguments)
        return made

    @contextmanager
    def unbooted(self, point: Point) -> Iterator[Machine]:
        """Return the machine of a point as it is before it is booted, for the time of a ``with`` block."""
        kind = self.registry.machine(point.machine)
        if kind.throwaway:
            with closing(kind(Place(private_network=point.private_network))) as machine:
                yield machine
        else:
            yield self.machine(point.machine)

    def planner(
        self,
        point: Point,
        machine: Machine,
        params: Mapping[str, Any] | None = None,
        directory: Path = Path(),
        *,
        tolerant: bool = False,
    ) -> Planner:
        """Return what plans deployments at a point; params of a call win over the marker's, and those over options."""
        merged = {**self.settings.params, **point.params, **(params or {})}
        root = machine.place.directory or self.settings.state_root
        privileged = point.profile == PRIVILEGED
        settings = replace(
            self.settings,
            params=merged,
            state_root=root,
            privileged=privileged,
            tolerant=tolerant,
            forms=self.forms(directory),
        )
        return Planner(point.manager, machine, self.registry.rules, settings)

    def _plan(self, planner: Planner, load: Load) -> Draft:
        """Draft a deployment at a place that is always the same; ports that the model asks for are leased for now."""
        site = planner.choose_site()
        assigner = Assigner(self.leases, planner.machine, site.root)
        try:
            others = living(self.leases, planner.machine, site.root)
            return planner.draft(load, site.renamed("plan"), assigner, others)
        finally:
            assigner.release()

    def reap_abandoned(self) -> None:
        """Before the first deployment, take down what crashed runs have left, and say so at the end."""
        if self._reaped:
            return
        self._reaped = True
        for claim in take_over(self.leases):
            self.warnings[f"took down what an earlier run has left in {claim.root}"] = None
            self.warnings.update(dict.fromkeys(attempt(partial(reap, claim, self.registry, self.leases))))

    @contextmanager
    def _conflicts_noted(self) -> Iterator[None]:
        """Take the findings that refuse a deployment into the report of all."""
        try:
            yield
        except ConflictError as error:
            self.note(finding for finding in error.findings if isinstance(finding, Finding))
            raise

    def _put_aside(self, system: System) -> None:
        """Take a system from those that tests use, and what was found in it into the report of all."""
        del self.live[system]
        self.note(system.findings)
        self.warnings.update(dict.fromkeys(map(str, system.findings)))

    def _end(self, system: System) -> None:
        """Take a system down, unless it is to be kept."""
        self._put_aside(system)
        keep = options.read(self.config, "keep")
        if keep == "always" or (keep == "failed" and system in self.failed):
            system.abandon()
            self.kept.append(system)
        else:
            system.stop()

    def load(self, model: ModelLike | None, directory: Path) -> Load:
        """Return the function that loads a model given in any of its forms; paths are relative to ``directory``."""
        if model is None:
            remedy = "give --nixproc-model=PATH, mark the test with nixproc(model=...), or override nixproc_model"
            raise NixprocError("there is no model to deploy", remedy=remedy)
        return self.forms(directory).loader(model)

    def forms(self, directory: Path) -> Forms:
        """Return how models are loaded whose paths are relative to a directory."""
        return Forms(self.registry.sources, str(directory))


def cache_of(config: pytest.Config) -> str | None:
    """Return our directory in pytest's cache, which all workers share; None where there is none that we can write."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    with suppress(OSError):
        directory = str(cache.mkdir("nixproc")) if cache is not None else None
        return directory if directory and os.access(directory, os.W_OK | os.X_OK) else None
    return None


def trial_of(
    constructor: Constructor,
    vary: Mapping[str, Sequence[Any]],
    shared: Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None,
) -> Trial:
    """Return a trial; what is shared may be a function that names what it wants to know, like that of a model."""
    if shared is None:
        return Trial(constructor, vary)
    if callable(shared):
        function = shared
        return Trial(constructor, vary, lambda arguments: call(function, replace(arguments, params={})))
    values = dict(shared)
    return Trial(constructor, vary, lambda _: values)


def systems_of(config: pytest.Config) -> Systems:
    """Return the systems of a pytest process, made when asked for first: an unused plugin makes none."""
    if KEY not in config.stash:
        systems = config.stash[KEY] = Systems(config)
        config.add_cleanup(systems.close)
    return config.stash[KEY]
