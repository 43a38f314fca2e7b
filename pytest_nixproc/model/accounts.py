"""The accounts that a whole system needs: the union of what its instances describe."""

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


class Said(NamedTuple):
    """What one instance says about an account: the value of one attribute, and where it stands."""

    instance: str
    kind: str
    name: str
    attribute: str
    value: Any

    @property
    def place(self) -> str:
        """The place in the instance."""
        return f"pkg.credentials.{self.kind}s.{self.name}.{self.attribute}"


def said_about_accounts(instances: Mapping[str, Instance]) -> Iterator[Said]:
    """Yield what instances say about accounts; an attribute that has its default is not spoken of."""
    for key, instance in instances.items():
        credentials = instance.pkg.credentials
        for kind, described in (("group", credentials.groups), ("user", credentials.users)):
            for name, account in described.items():
                for attribute, default in DEFAULTS[type(account)]:
                    value = getattr(account, attribute)
                    if value != default:
                        yield Said(key, kind, name, attribute, value)


def needed_accounts(instances: Mapping[str, Instance]) -> Credentials:
    """Return the groups and users to create: each once, with all that any instance says about it.

    A user without a primary group has one of its own name. Where instances contradict each other, which is a finding
    (NP106), the first one counts. Users that are there for their home directory only are left out.
    """
    known = united(said_about_accounts(instances))
    groups = {name: Group(**known["group", name]) for name in described(instances, "groups")}
    users = {name: User(**known["user", name]) for name in described(instances, "users")}
    users = {name: replace(user, group=user.group or name) for name, user in users.items()}
    accounts = {name: user for name, user in users.items() if not user.create_home_dir_only}
    own = {name: Group() for name, user in accounts.items() if user.group == name and name not in groups}
    return Credentials(groups=groups | own, users=accounts)


def needed_homes(instances: Mapping[str, Instance]) -> dict[str, str]:
    """Return the home directories to create, each with its user; without one, where no account is to be made."""
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


def united(known: Iterable[Said]) -> Mapping[tuple[str, str], dict[str, Any]]:
    """Return the attributes that any instance speaks of, by the kind and name of their account."""
    accounts: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for said in known:
        accounts[said.kind, said.name].setdefault(said.attribute, said.value)
    return accounts


def named_users(instances: Mapping[str, Instance]) -> dict[str, str]:
    """Return every user that a model names, with the first place that does."""
    places = {
        **{f"processes.{key}.pkg.user": instance.pkg.user for key, instance in instances.items()},
        **{
            f"processes.{key}.pkg.credentials.users.{name}": name
            for key, instance in instances.items()
            for name, user in instance.pkg.credentials.users.items()
            if not user.create_home_dir_only
        },
    }
    return first_places(places)


def named_groups(instances: Mapping[str, Instance]) -> dict[str, str]:
    """Return every group that a model names, with the first place that does."""
    places: dict[str, str | None] = {}
    for key, instance in instances.items():
        where = f"processes.{key}.pkg.credentials"
        places |= {f"{where}.groups.{name}": name for name in instance.pkg.credentials.groups}
        users = instance.pkg.credentials.users.items()
        for name, user in ((name, user) for name, user in users if not user.create_home_dir_only):
            places[f"{where}.users.{name}.group"] = user.group or name
            places |= {f"{where}.users.{name}.extra_groups[{i}]": group for i, group in enumerate(user.extra_groups)}
    return first_places(places)


def first_places(places: Mapping[str, str | None]) -> dict[str, str]:
    """Return names with the first of their places."""
    found: dict[str, str] = {}
    for place, name in places.items():
        if name:
            found.setdefault(name, place)
    return found
