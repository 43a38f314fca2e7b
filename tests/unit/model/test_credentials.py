"""Users and groups of a process."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from pytest_nixproc.errors import Fault
from pytest_nixproc.model.credentials import Credentials, Group, User, read_credentials

WEB = Credentials(
    groups={"web": Group(gid=5)}, users={"web": User(group="web", home_dir="/srv/web", create_home_dir=True)}
)


@pytest.mark.parametrize(
    "value",
    [
        WEB,
        {
            "groups": {"web": {"gid": 5}},
            "users": {"web": {"group": "web", "homeDir": "/srv/web", "createHomeDir": True}},
        },
        {
            "users": {"web": {"group": "web", "home_dir": "/srv/web", "create_home_dir": True}},
            "groups": {"web": {"gid": 5}},
        },
        MappingProxyType(
            {
                "groups": MappingProxyType({"web": {"gid": 5}}),
                "users": {"web": {"group": "web", "home_dir": "/srv/web", "create_home_dir": True}},
            }
        ),
    ],
)
def test_accounts_are_read(value: object) -> None:
    """Accounts are read in either spelling, from any mapping, or taken as they are."""
    faults: list[Fault] = []
    assert (read_credentials(value, "credentials", faults), faults) == (WEB, [])


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        ("web", "c", "is 'web', which is not a mapping"),
        ({"user": {}}, "c.user", "is neither 'groups' nor 'users'"),
        ({"users": ["web"]}, "c.users", "is not a mapping"),
        ({"users": {"web": None}}, "c.users.web", "is None, which is not a mapping"),
        ({"users": {"a/b": {}}}, "c.users", "cannot name a file"),
        ({"users": {"web": {"homedir": "/x"}}}, "c.users.web.homedir", "is no property of an account (known are uid"),
        ({"users": {"web": {"uid": "5"}}}, "c.users.web.uid", "is '5', which is not a whole number"),
        ({"users": {"web": {"uid": True}}}, "c.users.web.uid", "is True, which is not a whole number"),
        ({"users": {"web": {"createHomeDir": 1}}}, "c.users.web.createHomeDir", "is 1, which is not a truth value"),
        ({"users": {"web": {"extraGroups": "log"}}}, "c.users.web.extraGroups", "is 'log', which is not a list"),
        ({"users": {"web": {"extra_groups": ["a/b"]}}}, "c.users.web.extra_groups[0]", "cannot name a file"),
        ({"groups": {"web": {"gid": 1.5}}}, "c.groups.web.gid", "is not a whole number"),
    ],
)
def test_wrong_account_is_one_fault(value: object, path: str, words: str) -> None:
    """Each thing that is wrong with accounts is a fault with its path."""
    faults: list[Fault] = []
    read_credentials(value, "c", faults)
    assert [fault.path for fault in faults] == [path]
    assert words in str(faults[0])
