"""The users and groups that a process needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pytest_nixproc.errors import Fault
from pytest_nixproc.model import kinds
from pytest_nixproc.model.names import camel_case, snake_case


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of accounts; without ``gid`` the machine chooses one."""

    gid: int | None = None


@dataclass(frozen=True, kw_only=True)
class User:
    """An account; ``create_home_dir`` is honoured even where accounts may not be created.

    ``group`` is the primary group, by default one of the user's own name; ``extra_groups`` are those that it is also a
    member of. ``create_home_dir_only`` makes the home directory and no account; ``password`` is encrypted (crypt(5)).
    """

    uid: int | None = None
    group: str = ""
    extra_groups: tuple[str, ...] = ()
    description: str = ""
    home_dir: str = "/dev/null"
    create_home_dir: bool = False
    create_home_dir_only: bool = False
    shell: str = ""
    password: str = ""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Accounts by name."""

    groups: Mapping[str, Group] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)


GROUP_NAMES = kinds.sequence_of(kinds.NAME)
PROPERTY_TYPES = {"int | None": (int, "a whole number"), "bool": (bool, "a truth value"), "str": (str, "a string")}


def read_property(declared: str, value: object, path: str, faults: list[Fault]) -> object:
    """Read one property by the type that its field declares."""
    if declared == "tuple[str, ...]":
        return GROUP_NAMES.read(value, path, faults)
    return kinds.typed(value, *PROPERTY_TYPES[declared], path, faults)


def read_account(kind: type[Any], value: object, path: str, faults: list[Fault]) -> Any:
    """Read the properties of one group or user; unknown ones are faults."""
    types = {item.name: str(item.type) for item in fields(kind)}
    properties: dict[str, Any] = {}
    for spelled, item in kinds.read_mapping(value, path, faults).items():
        name = snake_case(str(spelled))
        if name not in types:
            faults.append(Fault(f"{path}.{spelled}", "is no property of an account", f"known are {', '.join(types)}"))
        else:
            properties[name] = read_property(types[name], item, f"{path}.{spelled}", faults)
    return kind(**properties)


def read_credentials(value: object, path: str, faults: list[Fault]) -> Credentials:
    """Read ``{"groups": {name: {...}}, "users": {name: {...}}}``."""
    if isinstance(value, Credentials):
        return value
    accounts: dict[str, dict[str, Any]] = {"groups": {}, "users": {}}
    for section, entries in kinds.read_mapping(value, path, faults).items():
        if section not in accounts:
            faults.append(Fault(f"{path}.{section}", "is neither 'groups' nor 'users'"))
            continue
        kind = Group if section == "groups" else User
        for name, entry in kinds.read_mapping(entries, f"{path}.{section}", faults).items():
            kinds.read_name(name, f"{path}.{section}", faults)
            accounts[section][name] = read_account(kind, entry, f"{path}.{section}.{name}", faults)
    return Credentials(groups=accounts["groups"], users=accounts["users"])


JSON_SCHEMAS: Mapping[str, Mapping[str, object]] = {
    "int | None": {"type": "integer"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "tuple[str, ...]": GROUP_NAMES.schema,
}


def account_schema(kind: type[Any]) -> dict[str, object]:
    """Return the JSON schema of a mapping of names to groups or users."""
    properties = {camel_case(item.name): dict(JSON_SCHEMAS[str(item.type)]) for item in fields(kind)}
    entry = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"type": "object", "additionalProperties": entry}


CREDENTIALS = kinds.Kind(
    "groups and users",
    read_credentials,
    {
        "type": "object",
        "properties": {"groups": account_schema(Group), "users": account_schema(User)},
        "additionalProperties": False,
    },
)
