"""The accounts of a machine, looked up with getent(1) and proc(5), where there is no quicker way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.parts import AccountDatabase, Files, Processes
from pytest_nixproc.machines.waiting import Clock, Deadline
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import Account, Accounts, Facts

LOOK_UP_SECONDS: Final = 10.0
LOOK_UP: Final = """
command -v getent > /dev/null || { echo 'there is no getent'; exit 1; }
count=$1
shift
while [ "$count" -gt 0 ]; do
    getent passwd "$1" && id -G -- "$1"
    shift
    count=$((count - 1))
done
echo
getent group
getent group "$@"
exit 0
"""
"""Prints the entries of some users, each with the numbers of all of its groups; then the entries of groups."""


class GetentAccounts(AccountDatabase):
    """The accounts of a machine, from its own database by getent(1), and from its kernel by proc(5)."""

    def __init__(self, processes: Processes, files: Files, clock: Clock, facts: Callable[[], Facts]) -> None:
        self._processes = processes
        self._files = files
        self._clock = clock
        self._facts = facts

    def named(self, users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
        """Look accounts up by their names, in one run of getent for all of them."""
        users, groups, facts = list(users), list(groups), self._facts()
        argv = (facts.shell, "-c", LOOK_UP, "sh", str(len(users)), *users, *groups)
        spawn = Spawn(argv, {"PATH": facts.path_variable})
        status, output = self._processes.capture(spawn, Deadline(self._clock, LOOK_UP_SECONDS))
        if status != 0:
            raise MachineError(f"cannot look accounts up with getent: {output.strip() or 'no answer'}")
        return read_accounts(output, users, groups)

    def of(self, pid: int) -> tuple[int, int] | None:
        """Return the effective user and group of a process, from proc(5)."""
        return account_of(pid, self._files)


def account_of(pid: int, files: Files) -> tuple[int, int] | None:
    """Return the effective user and group of a process from its status (proc(5)); None where there is none."""
    lines = (files.read(f"/proc/{pid}/status") or b"").splitlines()
    ids = {line.split()[0]: int(line.split()[2]) for line in lines if line.startswith((b"Uid:", b"Gid:"))}
    return (ids[b"Uid:"], ids[b"Gid:"]) if len(ids) == 2 else None


def read_accounts(output: str, users: Iterable[str], groups: Iterable[str]) -> Accounts:
    """Read the output of :data:`LOOK_UP`; entries of other names are dropped, as getent(1) takes a number for an id."""
    upper, _, lower = output.partition("\n\n") if not output.startswith("\n") else ("", "", output)
    numbers = {fields[0]: int(fields[2]) for line in lower.split("\n") if len(fields := line.split(":")) >= 4}
    names = {number: name for name, number in numbers.items()}
    lines = upper.split("\n")
    found: dict[str, Account] = {}
    members: dict[str, tuple[str, ...]] = {}
    for entry, ids in zip(lines[::2], lines[1::2], strict=False):
        name, _, uid, gid = entry.split(":")[:4]
        if name in set(users):
            found[name] = Account(name, int(uid), names.get(int(gid), gid), int(gid))
            members[name] = tuple(names.get(int(number), number) for number in ids.split() if number != gid)
    mentioned = {
        *groups,
        *(account.group for account in found.values()),
        *(name for all_ in members.values() for name in all_),
    }
    return Accounts(found, {name: numbers[name] for name in mentioned if name in numbers}, members)
