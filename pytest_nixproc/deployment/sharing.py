"""One deployment for several processes of one test run: who starts it, who may use it, and who takes it down.

The members of a run are leased one by one, before the first of them deploys anything. The first member that wants a
system starts it, the others attach to it by its journal; whoever finds on leaving that no other member lives takes
everything of the run down. All decisions are made under the file lock, from leases of living processes.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from typing import Final, Literal

from pytest_nixproc.deployment.leases import Claim, Leases, remove, replace_file
from pytest_nixproc.deployment.ownership import Owner
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import wait_until

MEMBER: Final = ".member"
Role = Literal["starter", "guest", "waiter"]


def root_for(state_root: str, run: str, *what: object) -> str:
    """Return the place of a shared deployment: the same for all members of a run that want the same system."""
    digest = hashlib.sha256(json.dumps([run, *what], sort_keys=True, default=repr).encode()).hexdigest()
    return f"{state_root}/{digest[:8]}"


class Run:
    """A test run, as one of its members sees it."""

    def __init__(self, leases: Leases, identity: str) -> None:
        self.leases = leases
        self.identity = identity
        self.me = Owner.current()
        # Users can name runs as they like (--testrunuid): with slashes, or so that one name begins with another.
        self._prefix = f"run-{hashlib.sha256(identity.encode()).hexdigest()[:12]}."

    def _file(self, owner: Owner) -> str:
        return f"{self.leases.directory}/{self._prefix}{owner.pid}{MEMBER}"

    def enter(self) -> None:
        """Become a member."""
        with self.leases.exclusively():
            forget_dead_members(self.leases)
            replace_file(self._file(self.me), json.dumps(self.me.facts()))

    def members(self) -> list[Owner]:
        """Return the members that live, oneself included; leases of dead ones are removed."""
        found = []
        for name in self.leases.names():
            if name.startswith(self._prefix) and name.endswith(MEMBER):
                owner = read_owner(f"{self.leases.directory}/{name}")
                if owner is not None and owner.is_alive:
                    found.append(owner)
                else:
                    remove(f"{self.leases.directory}/{name}")
        return found

    def join(self, root: str, guardian: Owner | None) -> Role:
        """Say what a member has to do for a system of the run: start it, use it, or wait and ask again."""
        with self.leases.exclusively():
            claim = self.leases.claim_of(root)
            if claim is None:
                self.leases.claim(Claim(root, (self.me,), guardian, run=self.identity, phase="starting"))
                return "starter"
            return "guest" if claim.phase == "ready" else "waiter"

    def opened(self, root: str) -> None:
        """Say that a system can be used."""
        with self.leases.exclusively():
            if claim := self.leases.claim_of(root):
                self.leases.claim(replace(claim, phase="ready"))

    def leave(self) -> list[str]:
        """Stop being a member; return the systems of the run that one has to take down, as its last member."""
        with self.leases.exclusively():
            remove(self._file(self.me))
            return self._take_over(Owner.current()) if not self.members() else []

    def recover(self) -> list[str]:
        """Return the systems that a dead member's guardian has to take down: none, while other members live."""
        with self.leases.exclusively():
            if self.members():
                return [
                    claim.root for claim in self._claims() if claim.phase == "starting" and not starter_lives(claim)
                ]
            return self._take_over(Owner.current())

    def _claims(self) -> list[Claim]:
        return [claim for claim in self.leases.claims() if claim.run == self.identity]

    def _take_over(self, owner: Owner) -> list[str]:
        """Mark all systems of the run as being taken down by one process, but for those that another one is at."""
        mine = []
        for claim in self._claims():
            if claim.phase != "stopping" or not starter_lives(claim) or claim.users == (owner,):
                self.leases.claim(replace(claim, phase="stopping", users=(owner,)))
                mine.append(claim.root)
        return mine


class Share:
    """One system of a run, as one of its members sees it."""

    def __init__(self, run: Run, root: str, patience_seconds: float) -> None:
        self.run = run
        self.root = root
        self.patience_seconds = patience_seconds

    def join(self, machine: Machine, guardian: Owner | None) -> bool:
        """Tell whether we have to start the system; if not, return once it can be used."""
        role: Role = "waiter"

        def look() -> str:
            nonlocal role
            role = self.run.join(self.root, guardian)
            return "another member of the run is starting or stopping it" if role == "waiter" else ""

        wait_until(look, machine.deadline(self.patience_seconds), f"wait for the shared deployment {self.root}")
        return role == "starter"

    def open(self) -> None:
        """Say that the system can be used."""
        self.run.opened(self.root)


def starter_lives(claim: Claim) -> bool:
    """Tell whether the process that starts or stops a system lives."""
    return any(owner.is_alive for owner in claim.users)


def read_owner(path: str) -> Owner | None:
    """Return the owner whose lease a file is; None when it cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError), open(path, encoding="utf-8") as file:
        return Owner.read(json.load(file))
    return None


def forget_dead_members(leases: Leases) -> None:
    """Remove what members have left that were killed before they deployed anything; call it under the lock."""
    for name in leases.names():
        path = f"{leases.directory}/{name}"
        if name.endswith(MEMBER):
            owner = read_owner(path)
            if owner is None or not owner.is_alive:
                remove(path)
        elif name.endswith(f"{MEMBER}.new"):
            remove(path)
