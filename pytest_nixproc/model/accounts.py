"""The accounts that a whole system needs: the union of those that its instances describe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

from pytest_nixproc.model.credentials import Credentials, Group, User
from pytest_nixproc.model.instance import Instance

DEFAULTS: Final[Mapping[type[Group | User], tuple[tuple[str, Any], ...]]] = {
    kind: tuple((item.name, item.default) for item in fields(kind)) for kind in (Group, User)
}
"""The attributes of accounts, with their defaults."""


class AccountClaim(NamedTuple):
    """The value that one instance gives to one attribute of an account."""

    instance: str
    kind: str
    """``user`` or ``group``."""

    name: str
    attribute: str
    value: Any

    @property
    def value_path(self) -> str:
        """The path of the value in the instance."""
        return f"pkg.credentials.{self.kind}s.{self.name}.{self.attribute}"


def account_claims(instances: Mapping[str, Instance]) -> Iterator[AccountClaim]:
    """Yield the attributes that instances give to accounts; one that has its default is left out."""
    for key, instance in instances.items():
        credentials = instance.pkg.credentials
        for kind, described in (("group", credentials.groups), ("user", credentials.users)):
            for name, account in described.items():
                for attribute, default in DEFAULTS[type(account)]:
                    value = getattr(account, attribute)
                    if value != default:
                        yield AccountClaim(key, kind, name, attribute, value)


def needed_accounts(instances: Mapping[str, Instance]) -> Credentials:
    """Return the groups and users to create: each once, with the attributes that all instances give to it.

    A user without a primary group has one of its own name. Where instances contradict each other, which is a finding
    (NP106), the first one counts. Users that are there for their home directory only are left out.
    """
    known: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for said in account_claims(instances):
        known[said.kind, said.name].setdefault(said.attribute, said.value)
    groups = {name: Group(**known["group", name]) for name in described(instances, "groups")}
    users = {name: User(**known["user", name]) for name in described(instances, "users")}
    users = {name: replace(user, group=user.group or name) for name, user in users.items()}
    accounts = {name: user for name, user in users.items() if not user.create_home_dir_only}
    own = {name: Group() for name, user in accounts.items() if user.group == name and name not in groups}
    return Credentials(groups=groups | own, users=accounts)


def needed_homes(instances: Mapping[str, Instance]) -> dict[str, str]:
    """Return the home directories to create, each with its owner; the owner is empty if no account is made."""
    return {
        user.home_dir: "" if user.create_home_dir_only else name
        for instance in instances.values()
        for name, user in instance.pkg.credentials.users.items()
        if user.create_home_dir or user.create_home_dir_only
    }


def described(instances: Mapping[str, Instance], section: str) -> Iterable[str]:
    """Return the names of the accounts that instances describe, each once, in their order."""
    names = [name for instance in instances.values() for name in getattr(instance.pkg.credentials, section)]
    return dict.fromkeys(names)


def named_users(instances: Mapping[str, Instance]) -> dict[str, str]:
    """Return every user that a model names, with the path of the first value that does."""
    value_paths = {
        **{f"processes.{key}.pkg.user": instance.pkg.user for key, instance in instances.items()},
        **{
            f"processes.{key}.pkg.credentials.users.{name}": name
            for key, instance in instances.items()
            for name, user in instance.pkg.credentials.users.items()
            if not user.create_home_dir_only
        },
    }
    return first_paths(value_paths)


def named_groups(instances: Mapping[str, Instance]) -> dict[str, str]:
    """Return every group that a model names, with the path of the first value that does."""
    value_paths: dict[str, str | None] = {}
    for key, instance in instances.items():
        where = f"processes.{key}.pkg.credentials"
        value_paths |= {f"{where}.groups.{name}": name for name in instance.pkg.credentials.groups}
        users = instance.pkg.credentials.users.items()
        for name, user in ((name, user) for name, user in users if not user.create_home_dir_only):
            value_paths[f"{where}.users.{name}.group"] = user.group or name
            value_paths |= {
                f"{where}.users.{name}.extra_groups[{i}]": group for i, group in enumerate(user.extra_groups)
            }
    return first_paths(value_paths)


def first_paths(value_paths: Mapping[str, str | None]) -> dict[str, str]:
    """Return names, each with the first of its paths."""
    found: dict[str, str] = {}
    for value_path, name in value_paths.items():
        if name:
            found.setdefault(name, value_path)
    return found
