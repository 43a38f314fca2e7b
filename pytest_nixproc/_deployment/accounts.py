"""Groups, users and home directories that a deployment needs: made before anything starts, and removed after it.

What is going to be made is written down beforehand, with the deployments that use it, in a ledger on the machine
itself, beside its database of accounts. So whoever takes a deployment down, in whatever way it ended, tells what was
made for it from what was there before; and what two deployments use at once is made by the first and removed by the
last of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from pytest_nixproc._deployment.problems import collect_problems
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc.errors import CommandFailed, DeploymentError, MachineError, WaitTimeout
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.model.accounts import named_groups, named_users, needed_accounts, needed_homes
from pytest_nixproc.model.credentials import User
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn, describe_status
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.value import Value

LEDGER: Final = "/etc/nixproc-accounts.json"
COMMAND_SECONDS: Final = 30.0
BUSY_SECONDS: Final = 5.0
NOT_FOUND: Final = 127
NAME_IN_USE: Final = 9
BUSY: Final = 8
"""Exit status of userdel(8) while there is a process of the user, and of groupdel(8) for the primary group of one."""

RUN: Final = 'exec "$@"'
"""Finds a command in PATH."""

MAKE_PROTECTED: Final = """\
"$@" || exit
printf '%s:%s\\n' "$NAME" "$PASSWORD" | chpasswd --encrypted"""
"""Makes a user, who then gets the password that a variable holds: printf is a part of the shell, and no process."""


class Item(Value):
    """One item that a deployment needs on its machine: a group, a user or a home directory."""

    kind: str
    """``group``, ``user`` or ``home``."""

    name: str
    """The name of the account, or the path of the home directory."""

    argv: tuple[str, ...] = ()
    """The command that makes it; the file of the ledger does not keep it."""

    password: str = ""
    """The hash of its password, for no command line and no file of ours: everybody could read the former."""

    origin: str = ""
    """Its place in the model; the file of the ledger does not keep it."""

    parents: tuple[str, ...] = ()
    """The directories that a home directory needs and that are not there either, the innermost first."""

    @property
    def key(self) -> str:
        """The key of the item, which is unique in the ledger."""
        return f"{self.kind}:{self.name}"


class Entry(Value):
    """One entry of the ledger."""

    item: Item
    """The item that was made, or is about to be."""

    holders: tuple[str, ...] = ()
    """The directories of the deployments that use it."""


@dataclass
class Ledger:
    """The items that were made on a machine, in the order of their making."""

    entries: dict[str, Entry] = field(default_factory=dict)
    """Entries by the keys of their items."""

    def hold(self, item: Item, root: str) -> None:
        """Record that a deployment uses an item."""
        entry = self.entries.get(item.key)
        if entry is None:
            # Directories above a home that were made for others: these may be gone before it.
            made = {*item.parents, *(parent for other in self.entries.values() for parent in other.item.parents)}
            above = map(str, PurePosixPath(item.name).parents)
            entry = Entry(replace(item, parents=tuple(path for path in above if path in made)))
        self.entries[item.key] = replace(entry, holders=tuple(dict.fromkeys([*entry.holders, root])))

    def drop(self, root: str, keep: Collection[str], living: Collection[str]) -> list[Item]:
        """Record that a deployment uses ``keep`` alone; return the items that no living one uses, the newest first."""
        for key, entry in self.entries.items():
            holders = [holder for holder in entry.holders if holder in living and (holder != root or key in keep)]
            self.entries[key] = replace(entry, holders=tuple(holders))
        return [entry.item for entry in reversed(self.entries.values()) if not entry.holders]

    def forget(self, items: Iterable[Item]) -> None:
        """Remove items from the ledger that no longer exist, or were never ours."""
        for item in items:
            self.entries.pop(item.key, None)

    def text(self) -> str:
        """Return the text of the ledger, without commands: they are needed no more, and may hold passwords."""
        lines = [
            [entry.item.kind, entry.item.name, entry.item.parents, entry.holders] for entry in self.entries.values()
        ]
        return json.dumps(lines)


def read_ledger(content: bytes | None, place: str) -> Ledger:
    """Read a ledger; raises :class:`~pytest_nixproc.errors.MachineError` for one that cannot be understood."""
    try:
        lines = [
            Entry(Item(kind, name, parents=tuple(parents)), tuple(holders))
            for kind, name, parents, holders in json.loads(content or b"[]")
        ]
    except (ValueError, TypeError) as error:
        remedy = "see which accounts it names, remove those that nobody needs, and then the file"
        raise MachineError(f"the ledger of accounts {place} cannot be read: {error}", remedy=remedy) from error
    return Ledger({entry.item.key: entry for entry in lines})


def groups_and_users(model: ProcessesModel) -> Iterator[Item]:
    """Yield the accounts of a model in the order of their making, with the commands of shadow that make them."""
    needed = needed_accounts(model)
    origins = named_groups(model)
    for name, group in needed.groups.items():
        number = () if group.gid is None else ("--gid", str(group.gid))
        yield Item("group", name, ("groupadd", "--system", *number, name), origin=origins[name])
    origins = named_users(model)
    for name, user in needed.users.items():
        argv = ("useradd", *account_options(user), name)
        yield Item("user", name, argv, user.password or "", origins[name])


def account_options(user: User) -> Iterator[str]:
    """Yield the options of useradd(8): a system account, in no log of logins, whose home directory is our business."""
    yield from ("--system", "--no-log-init", "--no-create-home", "--no-user-group", "--gid", user.group)
    yield from ("--home-dir", user.home_dir, "--comment", user.description)
    if user.uid is not None:
        yield from ("--uid", str(user.uid))
    if user.extra_groups:
        yield from ("--groups", ",".join(user.extra_groups))
    if user.shell:
        yield from ("--shell", user.shell)


def describe_end(status: int | None) -> str:
    """Return in words how a command ended."""
    return "was killed at its time limit" if status is None else describe_status(status)


def change_files(machine: Machine, argv: Sequence[str], what: str) -> None:
    """Run a command on generated files; raises :class:`~pytest_nixproc.errors.DeploymentError` if it does not work."""
    status, output = run_command(machine, argv)
    if status != 0:
        raise DeploymentError(f"{what} {describe_end(status)}", details=output.strip())


def run_command(machine: Machine, argv: Sequence[str]) -> tuple[int | None, str]:
    """Run a command of the machine's PATH; return its status, None when it was killed at its limit, and its output."""
    return run_text(machine, RUN, argv)


def run_text(
    machine: Machine, text: str, argv: Sequence[str], variables: Mapping[str, str] = MappingProxyType({})
) -> tuple[int | None, str]:
    """Run shell text with arguments and variables, as :func:`run_command` runs a command."""
    command = Spawn((machine.facts.shell, "-c", text, "sh", *argv), {"PATH": machine.facts.path_variable, **variables})
    return machine.processes.capture(command, machine.deadline(COMMAND_SECONDS))


class AccountProvisioner:
    """The accounts of one deployment on its machine."""

    def __init__(self, machine: Machine, leases: Leases, root: str) -> None:
        self.machine = machine
        self.leases = leases
        self.root = root
        is_root = machine.facts.account.uid == 0
        self.place = LEDGER if is_root else f"{leases.directory}/accounts"

    def provide(self, model: ProcessesModel, target: Target) -> None:
        """Make the accounts and homes that a model needs and the machine lacks; existing ones are left as they are.

        Where users are not changed, that is home directories only. Raises
        :class:`~pytest_nixproc.errors.DeploymentError` for what cannot be made; what was made until then stays written
        down for :meth:`release`.
        """
        items = self.items(model, target)
        if not items:
            return
        with self.leases.exclusively():
            ledger = self._read()
            there = self._there(model, items)
            for item in items:
                # A home within the deployment's directory is removed with that.
                is_within = item.kind == "home" and item.name.startswith(f"{self.root}/")
                if (item.key not in there or item.key in ledger.entries) and not is_within:
                    ledger.hold(item, self.root)
            self._write(ledger)
            self._make_all([item for item in items if item.key not in there], ledger)

    def items(self, model: ProcessesModel, target: Target) -> list[Item]:
        """Return the accounts and homes that a model needs, in the order of their making."""
        disabled = target.force_disable_user_change
        return [*([] if disabled else groups_and_users(model)), *self._homes(model, disabled=disabled)]

    def _homes(self, model: ProcessesModel, *, disabled: bool) -> Iterator[Item]:
        """Yield home directories; those of accounts are their users' own."""
        users = {} if disabled else needed_accounts(model).users
        for given, user in needed_homes(model).items():
            path = os.path.normpath(given)
            owner = ("-o", user, "-g", users[user].group) if user in users else ()
            argv = ("install", "-d", "-m", "755", *owner, path)
            above = map(str, PurePosixPath(path).parents[:-1])
            missing = takewhile(lambda directory: not self.machine.files.exists(directory), above)
            yield Item("home", path, argv, origin=f"home_dir of {user or 'a user'}", parents=tuple(missing))

    def _there(self, model: ProcessesModel, items: Iterable[Item]) -> set[str]:
        """Return the keys of the items that the machine has already."""
        known = self.machine.accounts.named(named_users(model), named_groups(model))
        homes = {item.key for item in items if item.kind == "home" and self.machine.files.exists(item.name)}
        return {f"user:{name}" for name in known.users} | {f"group:{name}" for name in known.groups} | homes

    def _make_all(self, items: Sequence[Item], ledger: Ledger) -> None:
        for number, item in enumerate(items):
            status, output = self._make(item)
            if status != 0:
                # Somebody else may have made it in this moment; those behind it, until we come to remove them.
                ledger.forget(items[number if status == NAME_IN_USE and item.kind != "home" else number + 1 :])
                self._write(ledger)
                brief = f"cannot make {item.kind} {item.name!r} ({item.origin}): {item.argv[0]} {describe_end(status)}"
                remedy = f"install {item.argv[0]} on the machine" if status == NOT_FOUND else "change its description"
                raise DeploymentError(brief, details=output[-OUTPUT_TAIL:].strip(), remedy=remedy)

    def _make(self, item: Item) -> tuple[int | None, str]:
        """Run the command that makes an item."""
        if not item.password:
            return self._run(item.argv)
        variables = {"NAME": item.name, "PASSWORD": item.password}
        return run_text(self.machine, MAKE_PROTECTED, item.argv, variables)

    def release(self, keep: Collection[str] = ()) -> list[str]:
        """Remove the deployment's items that no other one uses, except ``keep``; return the problems.

        What has lost its users in other ways, in a crash of the machine say, is removed with it. What stays on a
        throwaway machine is no problem: a user's session may outlive the programs that were the user's, and ends with
        the machine.
        """
        if self.machine.files.read(self.place) is None:
            return []
        with self.leases.exclusively():
            ledger = self._read()
            own = {key for key, entry in ledger.entries.items() if self.root in entry.holders}
            unused = ledger.drop(self.root, keep, self._living(ledger))
            self._write(ledger)
            problems: list[str] = []
            for item in unused:
                found = collect_problems(partial(self._remove, item, unused))
                if not found:
                    ledger.forget([item])
                # What others could not remove, they were told of.
                problems += found if item.key in own else []
            self._write(ledger)
        return [] if self.machine.throwaway else problems

    def _living(self, ledger: Ledger) -> set[str]:
        """Return the deployments that are not over: those with a lease or a directory."""
        leased = {lease.root for lease in self.leases.all()}
        holders = {holder for entry in ledger.entries.values() for holder in entry.holders}
        return {holder for holder in holders if holder in leased or self.machine.files.exists(holder)} | {self.root}

    def _remove(self, item: Item, unused: Collection[Item]) -> list[str]:
        """Remove one item, if it exists; return the problems."""
        if item.kind == "home":
            self.machine.files.remove(item.name)
            if item.parents:
                # Those that others have put something into stay.
                self._run(("rmdir", *item.parents))
            return []
        known = self.machine.accounts.named([item.name], [item.name])
        if item.kind == "group":
            return self._end(("groupdel", item.name)) if item.name in known.groups else []
        account = known.users.get(item.name)
        if account is None:
            return []
        if account.group == item.name and f"group:{item.name}" not in {other.key for other in unused}:
            # userdel removes a user's group of the same name too; this one is not ours, or not yet to go.
            self._run(("usermod", "--home", "/dev/null", "--gid", "0", item.name))
        return self._end(("userdel", item.name))

    def _end(self, argv: Sequence[str]) -> list[str]:
        """Run a command that removes an account, again while the kernel still shows a process of it."""
        status, output = None, ""

        def look() -> str:
            nonlocal status, output
            status, output = self._run(argv)
            return output.strip() if status == BUSY else ""

        try:
            wait_until(look, self.machine.deadline(BUSY_SECONDS), f"wait for {' '.join(argv)}")
        except WaitTimeout:
            status = BUSY
        return [] if status == 0 else [f"{' '.join(argv)} {describe_end(status)}: {output.strip()}"]

    def _run(self, argv: Sequence[str]) -> tuple[int | None, str]:
        return run_command(self.machine, argv)

    def _read(self) -> Ledger:
        return read_ledger(self.machine.files.read(self.place), self.place)

    def _write(self, ledger: Ledger) -> None:
        """Write the ledger anew, so that a crash leaves the old one or the new one; without entries there is none."""
        if not ledger.entries:
            self.machine.files.remove(self.place)
            return
        self.machine.files.write(f"{self.place}.new", ledger.text(), 0o600)
        status, output = self._run(("mv", "-f", f"{self.place}.new", self.place))
        if status != 0:
            raise CommandFailed(f"cannot write the ledger of accounts {self.place}", details=output.strip())
