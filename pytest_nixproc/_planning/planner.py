"""The planner, which turns a model into a plan: all that can be known before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from pytest_nixproc._persistence.assigner import Assigner
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._planning.inputs import Inputs
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc.checks.api import Rule, RuleInput
from pytest_nixproc.checks.claims import OtherDeployment
from pytest_nixproc.checks.rulebook import Rulebook
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.shielding import in_calling_thread
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.ids import ProvisionalIds, ProvisionalPorts
from pytest_nixproc.model.system import ProcessesModel

LoadModel = Callable[[ModelContext], ProcessesModel]


class Planner:
    """A planner of deployments on one machine, under one manager; it only reads model files and accounts."""

    def __init__(
        self,
        manager: Manager,
        machine: Machine,
        rules: Iterable[Rule],
        settings: Settings,
        managers: Collection[str] = (),
    ) -> None:
        self.manager = manager
        self.machine = machine
        self.settings = settings
        self.managers = managers
        """The names of all managers that are installed, for which models can have overrides."""

        self.rulebook = Rulebook(rules, settings.selected_rules, settings.ignored_rules)
        self.inputs = Inputs(manager.name, machine, settings)

    def allocate(self) -> DeploymentDirectory:
        """Choose a directory for a deployment, without making it."""
        return DeploymentDirectory.allocate(self.settings.state_root)

    def plan(
        self,
        load: LoadModel,
        directory: DeploymentDirectory | None = None,
        assigner: Assigner | None = None,
        others: Sequence[OtherDeployment] = (),
    ) -> Plan:
        """Load a model for a place, look for conflicts, and generate its files.

        A model that requires ids is loaded twice: it says what it requires, and then gets it. Without an assigner,
        which leases ports, it has to do with stand-ins.
        """
        directory = directory or self.allocate()
        context = replace(self.inputs.context(directory), ids=ProvisionalIds())
        if assigner is not None:
            context = replace(context, free_port=assigner.free_port)
        model = self._loaded(load, context)
        if model.id_requests and assigner is not None:
            model = self._loaded(load, replace(context, ids=assigner.assign(model)))
        plan = Plan.generated(self.manager, directory, self.inputs.target(directory, model), model)
        normalize_name = self.manager.normalize_name
        given = RuleInput(model, plan.target, plan.refusals, normalize_name, others, self.managers, plan.inventory)
        return plan.with_findings(self.rulebook.static(given))

    def preview(self, load: LoadModel) -> ProcessesModel:
        """Load a model with stand-ins for all that is known only when it is deployed; nothing is leased."""
        context = self.inputs.context(self.allocate())
        return self._loaded(load, replace(context, ids=ProvisionalIds(), free_port=ProvisionalPorts()))

    def _loaded(self, load: LoadModel, context: ModelContext) -> ProcessesModel:
        """Load a model, and confide its secrets before anything can be said about it."""
        model = in_calling_thread(partial(load, context))
        self.settings.confide(model.secrets)
        return model

    def settled(self, plan: Plan) -> Plan:
        """Return a plan whose files know the accounts that the machine has by now."""
        target = self.inputs.target(plan.directory, plan.model)
        if target == plan.target:
            return plan
        return Plan.generated(self.manager, plan.directory, target, plan.model).with_findings(plan.findings)
