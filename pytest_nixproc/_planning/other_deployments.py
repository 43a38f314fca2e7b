"""The other deployments of this machine, as far as a new one could conflict with them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from pytest_nixproc._persistence.assigner import Assigner
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import Journal, events
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._planning.planner import LoadModel, Planner
from pytest_nixproc.checks.claims import OtherDeployment
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.values.findings import Finding


def claims_of(plan: Plan) -> OtherDeployment:
    """Return the resources of a deployment that others have to know."""
    name = f"{plan.model.origin or 'a model'}, deployed in {plan.directory.root}"
    return OtherDeployment.of(name, plan.model, plan.target, plan.inventory)


def note_claims(journal: Journal, plan: Plan) -> None:
    """Write the resources of a deployment that others have to know into its journal."""
    claims = claims_of(plan)
    ports = {endpoint.text: instance for instance, endpoint in claims.ports}
    journal.write("claims", name=claims.name, ports=ports, paths=claims.paths, ids=claims.ids)


def running_deployments(leases: Leases, machine: Machine, root: str) -> list[OtherDeployment]:
    """Return the other deployments of a machine, by leases and journals; ``root`` is our own directory."""
    others = [lease.root for lease in leases.all() if lease.root != root and not lease.is_abandoned]
    # Throwaway machines of one kind differ in their directories alone.
    roots = [path for path in others if not machine.throwaway or os.path.dirname(path) == machine.spec.directory]
    return [found for path in roots for found in claims_in(DeploymentDirectory(path).journal, machine.name)]


def claims_in(path: str, machine: str) -> Iterable[OtherDeployment]:
    """Return the resources of a deployment by the last such event of its journal; none for other machines."""
    said: list[OtherDeployment] = []
    # A deployment that ends at this moment takes its journal with it; and another user's cannot be read.
    # One that is damaged is for whoever takes that deployment down, and nothing that ours could fail of.
    with suppress(OSError, KeyError, TypeError, ValueError, AttributeError, NixprocError):
        for event in events(path):
            if event["event"] == "begin" and event["machine"] != machine:
                return ()
            if event["event"] == "claims":
                ports = [(instance, Endpoint.read(text)) for text, instance in event["ports"].items()]
                said = [OtherDeployment(event["name"], ports, event["paths"], event["ids"])]
    return said


def without_ports(others: Iterable[OtherDeployment]) -> list[OtherDeployment]:
    """Return deployments without their ports, for use where the machine itself is asked for ports."""
    return [replace(other, ports=()) for other in others]


def rehearse(planner: Planner, load: LoadModel, leases: Leases) -> Plan:
    """Plan a deployment at a place that is always the same; ports that the model asks for are leased for now."""
    directory = planner.allocate()
    assigner = Assigner(leases, planner.machine, directory.root)
    try:
        others = running_deployments(leases, planner.machine, directory.root)
        return planner.plan(load, directory.renamed("plan"), assigner, others)
    finally:
        assigner.release()


def findings_beside(planners: Iterable[tuple[Planner, LoadModel]], leases: Leases) -> list[Finding]:
    """Return the static rules' findings about models deployed side by side, and beside the running deployments.

    Nothing is started; ports that a model asks for are leased for the moment. One finding of several managers is one.
    """
    findings: dict[str, Finding] = {}
    beside: dict[LoadModel, list[OtherDeployment]] = {}
    directories: dict[LoadModel, DeploymentDirectory] = {}
    for planner, load in planners:
        directory = directories.setdefault(load, planner.allocate())
        others = [found for other, its in beside.items() if other is not load for found in its]
        assigner = Assigner(leases, planner.machine, directory.root)
        try:
            there = running_deployments(leases, planner.machine, directory.root)
            plan = planner.plan(load, directory, assigner, [*there, *others])
        finally:
            assigner.release()
        beside[load] = [replace(claims_of(plan), name=plan.model.origin or "another model")]
        findings |= {str(finding): finding for finding in plan.findings}
    return list(findings.values())
