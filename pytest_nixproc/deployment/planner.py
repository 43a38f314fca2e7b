"""From a model to a draft: everything about a deployment that can be known before anything is started."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pytest_nixproc.checks.api import Departure, Finding, Plan, Rule, Snapshot, chosen, static_findings
from pytest_nixproc.checks.claims import Inventory, Neighbour, Told
from pytest_nixproc.checks.constructor import compare
from pytest_nixproc.deployment.assigner import Assigner
from pytest_nixproc.deployment.plan import Profile, Step, steps_between
from pytest_nixproc.deployment.site import TAG, Site
from pytest_nixproc.errors import Unsupported
from pytest_nixproc.machines.api import Accounts, Machine
from pytest_nixproc.managers.api import File, Link, Manager, Target, Unit, joined
from pytest_nixproc.model.accounts import named_groups, named_users
from pytest_nixproc.model.ids import ProvisionalIds, ProvisionalPorts
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Arguments, Tools
from pytest_nixproc.sources.constructors import FILES, Trial
from pytest_nixproc.sources.forms import Forms

Load = Callable[[Arguments], ProcessesModel]


def silent(_: str) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How deployments are done; times are in seconds, for one level of a system.

    ``selected_rules`` and ``ignored_rules`` are codes of the checks, or their beginnings; nothing selected selects all.
    ``privileged`` creates accounts and switches users; the machine has to be one that may be polluted. ``keep_failed``
    keeps the state of a deployment that could not be brought up; one that is ``tolerant`` comes up whatever the rules
    about running systems find. ``progress`` is called with a line of text now and
    then while one takes long; ``uninterrupted`` makes the context in which a teardown runs to its end.
    ``build_seconds`` is how long a program may take that reads or builds a model, and ``may_download`` whether it may
    fetch what this machine does not have; what is worth keeping of its results is kept in ``cache``. ``id_resources``
    and ``ids_file`` replace the files on ids that are beside a model. ``forms`` is how a model is loaded that a running
    system is upgraded to.
    """

    state_root: str | None = None
    start_seconds: float = 30.0
    stop_seconds: float = 10.0
    selected_rules: frozenset[str] = frozenset()
    ignored_rules: frozenset[str] = frozenset()
    params: Mapping[str, Any] = field(default_factory=dict)
    privileged: bool = False
    keep_failed: bool = False
    tolerant: bool = False
    progress: Callable[[str], None] = silent
    uninterrupted: Callable[[], AbstractContextManager[None]] = nullcontext
    build_seconds: float = 600.0
    may_download: bool = False
    cache: str | None = None
    id_resources: str = ""
    ids_file: str = ""
    forms: Forms = field(default_factory=Forms)


@dataclass(frozen=True)
class Draft:
    """A model as it would be deployed at a place; it cannot be while there are ``refusals`` of the manager."""

    site: Site
    target: Target
    model: ProcessesModel
    profile: Profile
    shared: tuple[File, ...]
    findings: tuple[Finding, ...]
    refusals: Mapping[str, Unsupported] = field(default_factory=dict)

    @cached_property
    def files(self) -> Sequence[File]:
        """All generated files, whole."""
        units = self.profile.units.values()
        return joined((*self.shared, *(file for unit in units for file in unit.files)))

    @property
    def links(self) -> Iterable[Link]:
        """All generated links."""
        return (link for unit in self.profile.units.values() for link in unit.links)

    @cached_property
    def _inventory(self) -> Inventory:
        return Inventory.of(self.model, self.target)

    @cached_property
    def told_pid_files(self) -> Sequence[Told]:
        """The PID files that programs are told to write."""
        return self._inventory.told_pid_files()

    @cached_property
    def outside(self) -> Mapping[str, str]:
        """What instances are told to keep outside the state directories, each path with its instance."""
        told = (*self._inventory.pid_files, *self._inventory.log_files, *self._inventory.paths)
        return {claim.resource: claim.instance for claim in told if not self.target.state.contains(claim.resource)}

    def with_findings(self, findings: Iterable[Finding]) -> Draft:
        """Return the draft with more findings."""
        new = tuple(finding for finding in findings if finding not in self.findings)
        return replace(self, findings=self.findings + new) if new else self

    def steps(self) -> tuple[Step, ...]:
        """Return the steps that bring it up."""
        return steps_between(Profile(), self.profile)


class Planner:
    """Drafts deployments on one machine, under one manager; reads model files and accounts, and does nothing else."""

    def __init__(self, manager: Manager, machine: Machine, rules: Iterable[Rule], settings: Settings) -> None:
        self.manager = manager
        self.machine = machine
        self.settings = settings
        self.rules = chosen(rules, settings.selected_rules, settings.ignored_rules)

    def choose_site(self) -> Site:
        """Choose a place for a deployment."""
        return Site.choose(self.settings.state_root)

    def draft(
        self,
        load: Load,
        site: Site | None = None,
        assigner: Assigner | None = None,
        neighbours: Sequence[Neighbour] = (),
    ) -> Draft:
        """Load a model for a place, look for conflicts, and generate its files.

        A model that requires ids is loaded twice: it says what it requires, and then gets it. Without an assigner,
        which leases ports, it has to do with stand-ins.
        """
        site = site or self.choose_site()
        arguments = replace(self.arguments(site), ids=ProvisionalIds())
        if assigner is not None:
            arguments = replace(arguments, free_port=assigner.free_port)
        model = load(arguments)
        if model.id_requests and assigner is not None:
            model = load(replace(arguments, ids=assigner.assign(model)))
        draft = self._generated(site, self.target(site, model), model)
        plan = Plan(model, draft.target, draft.refusals, self.manager.fold, neighbours)
        return draft.with_findings(static_findings(self.rules, plan))

    def preview(self, load: Load) -> ProcessesModel:
        """Load a model with stand-ins for all that is known only when it is deployed; nothing is leased."""
        arguments = self.arguments(self.choose_site())
        return load(replace(arguments, ids=ProvisionalIds(), free_port=ProvisionalPorts()))

    def constructor_findings(self, trial: Trial) -> list[Finding]:
        """Return what the rules about constructors find in what one makes of different parameters."""
        comparison = compare(trial, self.arguments(self.choose_site()), FILES)
        return [finding for rule in self.rules for finding in rule.constructor(comparison)]

    def _generated(self, site: Site, target: Target, model: ProcessesModel) -> Draft:
        """Generate all files; what the manager refuses is kept, so that it can be told together with what is found."""
        generator = self.manager.generator()
        units: dict[str, Unit] = {}
        refusals: dict[str, Unsupported] = {}
        for key in model:
            try:
                units[key] = generator.generate(key, model, target)
            except Unsupported as refusal:
                refusals[key] = refusal
        shared = () if refusals else generator.generate_shared(model, target)
        return Draft(site, target, model, Profile(units, model.levels), shared, (), refusals)

    def settled(self, draft: Draft) -> Draft:
        """Return a draft whose files know the accounts that the machine has by now."""
        target = self.target(draft.site, draft.model)
        if target == draft.target:
            return draft
        return replace(self._generated(draft.site, target, draft.model), findings=draft.findings)

    def arguments(self, site: Site) -> Arguments:
        """Return what models are told."""
        return Arguments(
            state=site.state,
            process_manager=self.manager.name,
            force_disable_user_change=not self.settings.privileged,
            system=f"{platform.machine()}-{sys.platform}",
            params=self.settings.params,
            calling_user=self.machine.facts.account.user,
            calling_group=self.machine.facts.account.group,
            tools=self.tools(),
            id_resources=self.settings.id_resources,
            ids_file=self.settings.ids_file,
        )

    def tools(self) -> Tools:
        """Return what sources can use that have a program read their models."""
        return Tools(
            run=lambda command, seconds: self.machine.capture_beside_tests(command, self.machine.deadline(seconds)),
            seconds=self.settings.build_seconds,
            may_download=self.settings.may_download,
            cache=self.settings.cache,
        )

    def target(self, site: Site, model: ProcessesModel) -> Target:
        """Return what generators are told."""
        return Target(
            state=site.state,
            directory=site.profile,
            identity=site.identity,
            facts=self.machine.facts,
            tags={TAG: site.root},
            stop_seconds=self.settings.stop_seconds,
            force_disable_user_change=not self.settings.privileged,
            accounts=self.known_accounts(model),
        )

    def known_accounts(self, model: ProcessesModel) -> Accounts:
        """Return the accounts that the machine has, of those that a model names, where that matters."""
        if not self.settings.privileged or not self.machine.is_up:
            return Accounts(are_known=False)
        return self.machine.accounts(named_users(model), named_groups(model))

    def live_findings(self, snapshot: Snapshot) -> list[Finding]:
        """Return what the rules about running systems find."""
        return [finding for rule in self.rules for finding in rule.live(snapshot)]

    def leak_findings(self, departure: Departure) -> list[Finding]:
        """Return what the rules about stopped instances find."""
        return [finding for rule in self.rules for finding in rule.leak(departure)]
