"""Rules about a model at the place where it will be deployed: its manager, its machine, other deployments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Final

from pytest_nixproc.checks.api import Rule, RuleInput, origin_of
from pytest_nixproc.checks.claims import OtherDeployment, ResourceClaim
from pytest_nixproc.checks.static import conflict, contested
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.ids import Pool
from pytest_nixproc.model.names import TYPING_ERROR, nearest
from pytest_nixproc.values.findings import Finding

POOL_KINDS: Final = ("ports", "uids", "gids")
"""How the names of pools end whose ids must not meet: ``webappPorts`` and ``nginxPorts``."""


def folded_names(given: RuleInput) -> Iterator[Finding]:
    """Find different names that become the same when the manager writes them."""
    claims = [
        ResourceClaim(key, "pkg.name", instance.pkg.name, given.normalize_name(instance.pkg.name))
        for key, instance in given.model.items()
    ]
    for claimants in contested(claims):
        if len({claim.value.casefold() for claim in claimants}) > 1:
            problem = f"would have the same name {claimants[0].resource!r} under their manager"
            remedy = "choose names that differ in more than punctuation"
            yield conflict(given, "NP115", problem, claimants, remedy, f"name {claimants[0].resource}")


def refused_values(given: RuleInput) -> Iterator[Finding]:
    """Find instances that the manager cannot express."""
    for name, refusal in given.refusals.items():
        yield Finding("NP116", "error", refusal.brief, (name,), (origin_of(given.model, name, "pkg"),), refusal.remedy)


def misnamed_managers(given: RuleInput) -> Iterator[Finding]:
    """Find overrides for a manager that there is not, and whose name is almost that of another."""
    for key, instance in given.model.items():
        overrides = instance.pkg.overrides
        for name in overrides.keys() - set(given.managers) if overrides else ():
            if meant := nearest(name, given.managers, TYPING_ERROR):
                problem = f"{key} has overrides for {name!r}, and no manager has that name"
                origin = origin_of(given.model, key, f"pkg.overrides.{name}")
                yield Finding("NP121", "error", problem, (key,), (origin,), f"did you mean {meant!r}?", name)


def overlapping_pools(given: RuleInput) -> Iterator[Finding]:
    """Find pools of the same kind of ids, such as ports or users, whose ranges overlap."""
    for kind in POOL_KINDS:
        pools = {name: pool for name, pool in given.model.pools.items() if name.lower().endswith(kind)}
        for (first, one), (second, other) in combinations(sorted(pools.items(), key=bounds), 2):
            if other.min > one.max:
                continue
            problem = f"the pools {first} and {second} both hold {other.min} to {min(one.max, other.max)}"
            origins = tuple(f"id_resources.{name} = {pool}" for name, pool in ((first, one), (second, other)))
            yield Finding("NP117", "warning", problem, (), origins, "move one of the pools", f"pool {first}")


def bounds(entry: tuple[str, Pool]) -> tuple[int, int]:
    """Return the bounds of a pool, by which pools are sorted."""
    return entry[1].min, entry[1].max


def privileged_ports(given: RuleInput) -> Iterator[Finding]:
    """Find ports that only root can listen on, of processes that are not started by root."""
    facts = given.target.facts
    for name, endpoint in given.inventory.endpoints:
        if endpoint.port >= facts.first_unprivileged_port:
            continue
        user = given.model[name].pkg.user_at(given.target) or facts.account.user
        if user != "root" and (user != facts.account.user or facts.account.uid):
            problem = f"{name} declares {endpoint.text}, and runs as {user}, who cannot listen on it"
            origin = origin_of(given.model, name, endpoint.value_path, endpoint.port)
            remedy = f"choose a port from {facts.first_unprivileged_port} on"
            yield Finding("NP119", "error", problem, (name,), (origin,), remedy, endpoint.text)


def beside_others(given: RuleInput) -> Iterator[Finding]:
    """Find ports, paths and accounts that conflict with another deployment of the machine."""
    if not given.others:
        return
    own = OtherDeployment.of("", given.model, given.target, given.inventory)
    for other in given.others:
        yield from met_ports(own.ports, other)
        for path in own.paths.keys() & other.paths.keys():
            problem = f"claims {path}, and so does {other.paths[path]} of {other.name}"
            yield shared_with_another(own.paths[path], problem, path)
        for account in own.ids.keys() & other.ids.keys():
            if own.ids[account] != other.ids[account]:
                problem = f"{account} gets {own.ids[account]} here and {other.ids[account]} in {other.name}"
                yield Finding("NP120", "error", problem, (), (), "describe one account in one way", account)


def met_ports(own: Iterable[tuple[str, Endpoint]], other: OtherDeployment) -> Iterator[Finding]:
    """Yield a finding for each port that another deployment declares too, on the same address or on every one."""
    theirs: dict[int, list[tuple[str, Endpoint]]] = defaultdict(list)
    for name, endpoint in other.ports:
        theirs[endpoint.port].append((name, endpoint))
    found = {
        (instance, endpoint.text): (name, met)
        for instance, endpoint in own
        for name, met in theirs.get(endpoint.port, ())
        if endpoint.meets(met)
    }
    for (instance, text), (name, met) in found.items():
        whose = f"{name} of {other.name}"
        also = f"so does {whose}" if met.text == text else f"{whose} declares {met.text}"
        yield shared_with_another(instance, f"declares {text}, and {also}", text)


def shared_with_another(instance: str, problem: str, resource: str) -> Finding:
    """Return the finding for a resource of an instance that another deployment has too."""
    remedy = "derive it from a parameter, or from the state directories"
    return Finding("NP120", "error", f"{instance} {problem}", (instance,), (), remedy, resource)


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Return the rules about the environment of a deployment, for the registry."""
    return RULES


RULES: Final = [
    Rule(
        "NP115",
        "names differ as the manager writes them",
        static=folded_names,
        explanation="Some managers allow few characters in a name, and replace the others: then `web-1` and `web_1`"
        " are one.",
    ),
    Rule(
        "NP116",
        "the manager can carry every value",
        static=refused_values,
        explanation="Every value arrives in the process byte for byte, or is refused. Managers refuse a parameter that"
        " they do not have, a character that their syntax cannot express, and dependencies deeper than their"
        " priorities go. The deployment is refused even if this rule is ignored.",
    ),
    Rule(
        "NP117",
        "pools of ids do not overlap",
        static=overlapping_pools,
        severity="warning",
        explanation="Ports of overlapping pools are never given twice in one model, but the pools run out earlier than"
        " they look, and two models that share them do not know of each other. The rule compares pools whose names end"
        " in `ports`, `uids` and `gids`.",
    ),
    Rule(
        "NP119",
        "only root listens on privileged ports",
        static=privileged_ports,
        explanation="Ports below 1024, or where the kernel says (`net.ipv4.ip_unprivileged_port_start`), are for root."
        " Unprivileged deployments run as the calling user; in the profile `privileged`, a process that the manager"
        " starts as its `user` is not root either.",
    ),
    Rule(
        "NP120",
        "no two deployments of a machine claim the same",
        static=beside_others,
        explanation="It compares ports, paths outside the state directories, and the ids of accounts, with the models"
        " that are checked together and with the deployments that the machine has already.",
    ),
    Rule(
        "NP121",
        "overrides are for managers",
        static=misnamed_managers,
        explanation="Overrides for other managers than the one in use are ignored, so that a mistyped name would make"
        " them ineffective without a word. Only a name that is almost that of an installed manager is refused: any"
        " other may be that of a manager which is installed elsewhere.",
    ),
]
