"""Rules about the users and groups that a model describes and names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from pytest_nixproc.checks.api import Finding, Origin, Plan, Rule, origin_of
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.accounts import Said, named_groups, named_users, needed_accounts

IDS: Final = ("uid", "gid")


def origin_of_said(plan: Plan, said: Said) -> Origin:
    """Return where something is said about an account."""
    return origin_of(plan.model, said.instance, said.place, said.value)


def differing_accounts(plan: Plan) -> Iterator[Finding]:
    """Find users and groups that two instances describe with different attributes."""
    described: dict[tuple[str, str, str], list[Said]] = defaultdict(list)
    for said in plan.said:
        described[said.kind, said.name, said.attribute].append(said)
    for (kind, name, attribute), speakers in described.items():
        if len({said.value for said in speakers}) > 1:
            instances = tuple(said.instance for said in speakers)
            problem = f"{' and '.join(instances)} give {kind} {name!r} a different {attribute}"
            origins = tuple(origin_of_said(plan, said) for said in speakers)
            remedy = "describe one account in one way"
            yield Finding("NP106", "error", problem, instances, origins, remedy, f"{kind} {name}")


def shared_ids(plan: Plan) -> Iterator[Finding]:
    """Find numbers that two users, or two groups, of different names are given."""
    given: dict[tuple[str, int], dict[str, Said]] = defaultdict(dict)
    for said in plan.said:
        if said.attribute in IDS:
            given[said.attribute, said.value].setdefault(said.name, said)
    for (attribute, number), by_name in given.items():
        if len(by_name) > 1:
            names = " and ".join(repr(name) for name in by_name)
            instances = tuple(dict.fromkeys(said.instance for said in by_name.values()))
            origins = tuple(origin_of_said(plan, said) for said in by_name.values())
            problem, remedy = f"{names} have the same {attribute} {number}", "give each account its own number"
            yield Finding("NP114", "error", problem, instances, origins, remedy, f"{attribute} {number}")


def unknown_accounts(plan: Plan) -> Iterator[Finding]:
    """Find users and groups that are neither described nor known to the machine, and those that tools take for ids."""
    if plan.target.force_disable_user_change or not plan.target.accounts.are_known:
        return
    needed, known = needed_accounts(plan.model), plan.target.accounts
    for kind, named, there in (
        ("user", named_users(plan.model), {*needed.users, *known.users}),
        ("group", named_groups(plan.model), {*needed.groups, *known.groups}),
    ):
        for name, path in named.items():
            instance, _, place = path.removeprefix("processes.").partition(".pkg.")
            origin = origin_of(plan.model, instance, f"pkg.{place}", name)
            if name.isdecimal():
                problem, remedy = f"{kind} {name!r} is a number, which tools take for an id", "choose another name"
                yield Finding("NP109", "error", problem, (instance,), (origin,), remedy, f"{kind} {name}")
            elif name not in there:
                problem = f"{kind} {name!r} is neither described in the model nor known to the machine"
                remedy = f"describe it: credentials={{'{kind}s': {{{name!r}: {{...}}}}}}"
                yield Finding("NP109", "error", problem, (instance,), (origin,), remedy, f"{kind} {name}")


def existing_accounts(plan: Plan) -> Iterator[Finding]:
    """Find accounts that exist already with other ids than the model gives them: they are used as they are."""
    if plan.target.force_disable_user_change:
        return
    known = plan.target.accounts
    numbers = {"user": {name: account.uid for name, account in known.users.items()}, "group": known.groups}
    for said in plan.said:
        number = numbers[said.kind].get(said.name)
        if said.attribute in IDS and number not in (None, said.value):
            problem = f"{said.kind} {said.name!r} exists already, and its {said.attribute} is {number}; it is used so"
            origins, resource = (origin_of_said(plan, said),), f"{said.kind} {said.name}"
            yield Finding("NP110", "warning", problem, (said.instance,), origins, "leave the id out", resource)


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Offer the rules about accounts."""
    return RULES


RULES: Final = [
    Rule(
        "NP106",
        "a user or group is described in one way",
        static=differing_accounts,
        explanation="Several instances may describe one account, and their descriptions are put together. Where they"
        " contradict each other, chance would decide what the account becomes.",
    ),
    Rule(
        "NP109",
        "accounts that are switched to are described, or exist",
        static=unknown_accounts,
        explanation="In the profile `privileged`, every user and group that a model names has to be described by it, or"
        " be there already. A name that consists of digits is refused: many tools take it for an id.",
    ),
    Rule(
        "NP110",
        "accounts that exist already have the ids of the model",
        static=existing_accounts,
        severity="warning",
        explanation="Accounts that exist are used as they are, so the ids that the model gives them have no effect.",
    ),
    Rule(
        "NP114",
        "no two accounts are given the same id",
        static=shared_ids,
        explanation="To the kernel, two users with one number are one user: each can read the other's files, and"
        " signal and trace its processes. The rule compares the `uid` of users and the `gid` of groups of different"
        " names.",
    ),
]
