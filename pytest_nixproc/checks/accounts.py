"""Rules about the users and groups that a model describes and names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from pytest_nixproc.checks.api import Rule, RuleInput, origin_of
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.accounts import AccountClaim, named_groups, named_users, needed_accounts
from pytest_nixproc.values.findings import Finding, Origin

IDS: Final = ("uid", "gid")


def origin_of_account(given: RuleInput, claim: AccountClaim) -> Origin:
    """Return the origin (path, value, file and line) of the value that an instance gives to an account."""
    return origin_of(given.model, claim.instance, claim.value_path, claim.value)


def differing_accounts(given: RuleInput) -> Iterator[Finding]:
    """Find users and groups that two instances describe with different attributes."""
    described: dict[tuple[str, str, str], list[AccountClaim]] = defaultdict(list)
    for claim in given.account_claims:
        described[claim.kind, claim.name, claim.attribute].append(claim)
    for (kind, name, attribute), speakers in described.items():
        if len({claim.value for claim in speakers}) > 1:
            instances = tuple(claim.instance for claim in speakers)
            problem = f"{' and '.join(instances)} give {kind} {name!r} a different {attribute}"
            origins = tuple(origin_of_account(given, claim) for claim in speakers)
            remedy = "describe one account in one way"
            yield Finding("NP106", "error", problem, instances, origins, remedy, f"{kind} {name}")


def shared_ids(given: RuleInput) -> Iterator[Finding]:
    """Find ids that the model gives to two users, or two groups, of different names."""
    owners: dict[tuple[str, int], dict[str, AccountClaim]] = defaultdict(dict)
    for claim in given.account_claims:
        if claim.attribute in IDS:
            owners[claim.attribute, claim.value].setdefault(claim.name, claim)
    for (attribute, number), by_name in owners.items():
        if len(by_name) > 1:
            names = " and ".join(repr(name) for name in by_name)
            instances = tuple(dict.fromkeys(claim.instance for claim in by_name.values()))
            origins = tuple(origin_of_account(given, claim) for claim in by_name.values())
            problem, remedy = f"{names} have the same {attribute} {number}", "give each account its own number"
            yield Finding("NP114", "error", problem, instances, origins, remedy, f"{attribute} {number}")


def unknown_accounts(given: RuleInput) -> Iterator[Finding]:
    """Find accounts that neither the model describes nor the machine knows, and names that tools read as ids."""
    if given.target.force_disable_user_change or not given.target.accounts.are_known:
        return
    needed, known = needed_accounts(given.model), given.target.accounts
    for kind, named, there in (
        ("user", named_users(given.model), {*needed.users, *known.users}),
        ("group", named_groups(given.model), {*needed.groups, *known.groups}),
    ):
        for name, path in named.items():
            instance, _, value_path = path.removeprefix("processes.").partition(".pkg.")
            origin = origin_of(given.model, instance, f"pkg.{value_path}", name)
            if name.isdecimal():
                problem, remedy = f"{kind} {name!r} is a number, which tools take for an id", "choose another name"
                yield Finding("NP109", "error", problem, (instance,), (origin,), remedy, f"{kind} {name}")
            elif name not in there:
                problem = f"{kind} {name!r} is neither described in the model nor known to the machine"
                remedy = f"describe it: credentials={{'{kind}s': {{{name!r}: {{...}}}}}}"
                yield Finding("NP109", "error", problem, (instance,), (origin,), remedy, f"{kind} {name}")


def existing_accounts(given: RuleInput) -> Iterator[Finding]:
    """Find accounts that exist already with other ids than the model gives them: they are used as they are."""
    if given.target.force_disable_user_change:
        return
    known = given.target.accounts
    numbers = {"user": {name: account.uid for name, account in known.users.items()}, "group": known.groups}
    for claim in given.account_claims:
        number = numbers[claim.kind].get(claim.name)
        if claim.attribute in IDS and number not in (None, claim.value):
            problem = (
                f"{claim.kind} {claim.name!r} exists already, and its {claim.attribute} is {number}; it is used so"
            )
            origins, resource = (origin_of_account(given, claim),), f"{claim.kind} {claim.name}"
            yield Finding("NP110", "warning", problem, (claim.instance,), origins, "leave the id out", resource)


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Return the rules about accounts, for the registry."""
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
