"""A model as it would be deployed for a target: everything that can be known before anything is started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from typing import Self

from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._planning.steps import Step, UnitSet, steps_between
from pytest_nixproc.checks.claims import Inventory, ReferencedPidFile
from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.findings import Finding
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Link, Unit, joined
from pytest_nixproc.values.value import Value


class Plan(Value):
    """A model as it would be deployed for a target."""

    directory: DeploymentDirectory
    target: Target
    model: ProcessesModel
    unit_set: UnitSet
    shared: tuple[File, ...]
    """Files of the system as a whole, or parts of them."""

    inventory: Inventory
    """The claims of the instances."""

    findings: tuple[Finding, ...]
    refusals: Mapping[str, Unsupported] = field(default_factory=dict)
    """Errors for values that the manager cannot express, by instance; while there are any, nothing can be deployed."""

    @classmethod
    def generated(cls, manager: Manager, directory: DeploymentDirectory, target: Target, model: ProcessesModel) -> Self:
        """Generate all files; refusals of the manager are kept, so that they are reported together with findings."""
        units: dict[str, Unit] = {}
        refusals: dict[str, Unsupported] = {}
        for key in model:
            try:
                units[key] = manager.unit(key, model, target)
            except Unsupported as refusal:
                refusals[key] = refusal
        shared = () if refusals else manager.generator().generate_shared(model, target)
        unit_set, inventory = UnitSet(units, model.dependencies), Inventory.of(model, target)
        return cls(directory, target, model, unit_set, shared, inventory, (), refusals)

    @cached_property
    def files(self) -> Sequence[File]:
        """All generated files, joined from their parts."""
        units = self.unit_set.units.values()
        return joined((*self.shared, *(file for unit in units for file in unit.files)))

    @property
    def links(self) -> Iterable[Link]:
        """All generated links."""
        return (link for unit in self.unit_set.units.values() for link in unit.links)

    @cached_property
    def referenced_pid_files(self) -> Sequence[ReferencedPidFile]:
        """The PID files whose paths are passed to programs."""
        return self.inventory.referenced_pid_files()

    @cached_property
    def outside(self) -> Mapping[str, str]:
        """The paths that instances claim outside the state directories, each with its instance."""
        told = (*self.inventory.pid_files, *self.inventory.log_files, *self.inventory.paths)
        return {claim.resource: claim.instance for claim in told if not self.target.state.contains(claim.resource)}

    def with_findings(self, findings: Iterable[Finding]) -> Plan:
        """Return the plan with more findings."""
        new = tuple(finding for finding in findings if finding not in self.findings)
        return replace(self, findings=self.findings + new) if new else self

    def steps(self) -> tuple[Step, ...]:
        """Return the steps that bring the plan up."""
        return steps_between(UnitSet(), self.unit_set)
