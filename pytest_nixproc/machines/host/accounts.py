"""Accounts of this machine, as the C library knows them."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from pytest_nixproc.machines import process_table
from pytest_nixproc.machines.accounts import account_of
from pytest_nixproc.machines.parts import AccountDatabase, Files
from pytest_nixproc.values.machine import Account, Accounts, GroupEntry, UserEntry


class HostAccounts(AccountDatabase):
    """The accounts of this machine from the C library, which reads the databases of getent(1) without a process."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def named(self, users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
        """Look accounts up one by one."""
        found: dict[str, Account] = {}
        members: dict[str, tuple[str, ...]] = {}
        for name in users:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                others = (number for number in os.getgrouplist(name, entry.pw_gid) if number != entry.pw_gid)
                members[name] = tuple(map(group_name, others))
                found[name] = Account(name, entry.pw_uid, group_name(entry.pw_gid), entry.pw_gid)
        mentioned = {*groups, *(account.group for account in found.values()), *chain.from_iterable(members.values())}
        numbers = {}
        for name in mentioned:
            with contextlib.suppress(KeyError):
                numbers[name] = grp.getgrnam(name).gr_gid
        return Accounts(found, numbers, members)

    def of(self, pid: int) -> tuple[int, int] | None:
        """Return the effective user and group of a process, from ``/proc`` or, where there is none, from psutil."""
        if process_table.HAS_PROC:
            return account_of(pid, self._files)
        import psutil

        try:
            process = psutil.Process(pid)
            return process.uids().effective, process.gids().effective
        except psutil.Error:
            return None


def group_name(number: int) -> str:
    """Return a group's name; its number, where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def local_users() -> tuple[UserEntry, ...]:
    """Return the users of ``/etc/passwd``: a directory server may have any number, and take any time to list them."""
    entries = (fields for fields in entries_of("/etc/passwd", 7) if fields[3].isdigit())
    return tuple(UserEntry(name, int(uid), int(gid), home, shell) for name, _, uid, gid, _, home, shell in entries)


def local_groups() -> tuple[GroupEntry, ...]:
    """Return the groups of ``/etc/group``."""
    entries = entries_of("/etc/group", 4)
    return tuple(GroupEntry(name, int(gid), tuple(filter(None, users.split(",")))) for name, _, gid, users in entries)


def entries_of(path: str, number: int) -> list[list[str]]:
    """Return the entries of a file of accounts, each as a number of fields; what is no account's is left out."""
    try:
        lines = Path(path).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    # Comments are none, and neither are the marks by which old systems include a directory service (nsswitch.conf(5)).
    entries = (line.split(":") for line in lines if line[:1] not in ("", "#", "+", "-"))
    return [fields for fields in entries if len(fields) == number and fields[2].isdigit()]


def own_account() -> Account:
    """Return the account of this process; numbers stand for names that the system does not know."""
    uid, gid = os.geteuid(), os.getegid()
    with contextlib.suppress(KeyError):
        return Account(pwd.getpwuid(uid).pw_name, uid, grp.getgrgid(gid).gr_name, gid)
    return Account(str(uid), uid, str(gid), gid)
