"""The users and groups that a process needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from pytest_nixproc.errors import Fault
from pytest_nixproc.model import value_types
from pytest_nixproc.model.names import camel_case, snake_case
from pytest_nixproc.values.value import Value


class Group(Value, kw_only=True):
    """A group that a process needs."""

    gid: int | None = None
    """Number of the group; if None, the machine chooses one."""


class User(Value, kw_only=True):
    """A user account that a process needs."""

    uid: int | None = None
    """Number of the user; if None, the machine chooses one."""

    group: str = ""
    """Primary group; if empty, one of the user's own name."""

    extra_groups: tuple[str, ...] = ()
    """Groups that the user is a member of besides the primary one."""

    description: str = ""
    home_dir: str = "/dev/null"
    create_home_dir: bool = False
    """Whether to make the home directory, even where accounts may not be created."""

    create_home_dir_only: bool = False
    """Whether to make the home directory and no account."""

    shell: str = ""
    password: str = ""
    """Encrypted password (crypt(5))."""


class Credentials(Value, kw_only=True):
    """Groups and users, by name."""

    groups: Mapping[str, Group] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)


GROUP_NAMES = value_types.sequence_of(value_types.NAME)
PROPERTY_TYPES = {"int | None": (int, "a whole number"), "bool": (bool, "a truth value"), "str": (str, "a string")}


def read_account(kind: type[Any], value: object, path: str, faults: list[Fault]) -> Any:
    """Read the properties of one group or user; unknown ones are faults."""
    types = {item.name: str(item.type) for item in fields(kind)}
    properties: dict[str, Any] = {}
    for spelled, item in value_types.read_mapping(value, path, faults).items():
        name = snake_case(str(spelled))
        if name not in types:
            faults.append(Fault(f"{path}.{spelled}", "is no property of an account", f"known are {', '.join(types)}"))
        elif types[name] == "tuple[str, ...]":
            properties[name] = GROUP_NAMES.read(item, f"{path}.{spelled}", faults)
        else:
            properties[name] = value_types.typed(item, *PROPERTY_TYPES[types[name]], f"{path}.{spelled}", faults)
    return kind(**properties)


def read_credentials(value: object, path: str, faults: list[Fault]) -> Credentials:
    """Read groups and users: ``{"groups": {name: {...}}, "users": {name: {...}}}``."""
    if isinstance(value, Credentials):
        return value
    accounts: dict[str, dict[str, Any]] = {"groups": {}, "users": {}}
    for section, entries in value_types.read_mapping(value, path, faults).items():
        if section not in accounts:
            faults.append(Fault(f"{path}.{section}", "is neither 'groups' nor 'users'"))
            continue
        kind = Group if section == "groups" else User
        for name, entry in value_types.read_mapping(entries, f"{path}.{section}", faults).items():
            value_types.read_name(name, f"{path}.{section}", faults)
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


CREDENTIALS = value_types.ValueType(
    "groups and users",
    read_credentials,
    {
        "type": "object",
        "properties": {"groups": account_schema(Group), "users": account_schema(User)},
        "additionalProperties": False,
    },
)
