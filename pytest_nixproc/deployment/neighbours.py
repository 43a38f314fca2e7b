"""The other deployments of this machine, as far as a new one could get in their way."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from pytest_nixproc.checks.api import Finding, Plan
from pytest_nixproc.checks.claims import Neighbour
from pytest_nixproc.deployment.assigner import Assigner
from pytest_nixproc.deployment.journal import Journal, events
from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.planner import Draft, Load, Planner
from pytest_nixproc.deployment.site import Site
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.instance import Endpoint


def neighbour_of(draft: Draft) -> Neighbour:
    """Return what others have to know of a deployment."""
    inventory = Plan(draft.model, draft.target).inventory
    name = f"{draft.model.origin or 'a model'}, deployed in {draft.site.root}"
    return Neighbour.of(name, draft.model, draft.target, inventory)


def note_claims(journal: Journal, draft: Draft) -> None:
    """Write down what others have to know of a deployment."""
    claims = neighbour_of(draft)
    ports = {endpoint.text: instance for instance, endpoint in claims.ports}
    journal.write("claims", name=claims.name, ports=ports, paths=claims.paths, ids=claims.ids)


def living(leases: Leases, machine: Machine, root: str) -> list[Neighbour]:
    """Return what is deployed on a machine, by leases and journals; ``root`` is our own place."""
    others = [claim.root for claim in leases.claims() if claim.root != root and not claim.is_abandoned]
    roots = [path for path in others if may_be_on(machine, path)]
    return [found for path in roots for found in claims_in(Site(path).journal, machine.name)]


def may_be_on(machine: Machine, root: str) -> bool:
    """Tell whether a place can be a machine's: throwaway machines of one kind differ in their directories alone."""
    return not machine.throwaway or os.path.dirname(root) == machine.place.directory


def claims_in(path: str, machine: str) -> Iterable[Neighbour]:
    """Return what a journal says others have to know, the last time that it says so; nothing of other machines."""
    said: list[Neighbour] = []
    # A deployment that ends at this moment takes its journal with it; and another user's cannot be read.
    with suppress(OSError):
        for event in events(path):
            if event["event"] == "begin" and event["machine"] != machine:
                return ()
            if event["event"] == "claims":
                ports = [(instance, Endpoint.read(text)) for text, instance in event["ports"].items()]
                said = [Neighbour(event["name"], ports, event["paths"], event["ids"])]
    return said


def without_ports(neighbours: Iterable[Neighbour]) -> list[Neighbour]:
    """Leave ports out, where the machine itself is asked for them."""
    return [replace(neighbour, ports=()) for neighbour in neighbours]


def findings_beside(planners: Iterable[tuple[Planner, Load]], leases: Leases) -> list[Finding]:
    """Return what the static rules find in models that would be deployed side by side, and beside what there is.

    Nothing is started; ports that a model asks for are leased for the moment. One finding of several managers is one.
    """
    findings: dict[str, Finding] = {}
    beside: dict[Load, list[Neighbour]] = {}
    sites: dict[Load, Site] = {}
    for planner, load in planners:
        site = sites.setdefault(load, planner.choose_site())
        others = [found for other, its in beside.items() if other is not load for found in its]
        assigner = Assigner(leases, planner.machine, site.root)
        try:
            there = living(leases, planner.machine, site.root)
            draft = planner.draft(load, site, assigner, [*there, *others])
        finally:
            assigner.release()
        beside[load] = [replace(neighbour_of(draft), name=draft.model.origin or "another model")]
        findings |= {str(finding): finding for finding in draft.findings}
    return list(findings.values())
