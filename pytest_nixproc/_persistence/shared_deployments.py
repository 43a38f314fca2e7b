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

from pytest_nixproc._persistence.files import remove, replace_file
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._persistence.trust import open_own
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import wait_until

MEMBER: Final = ".member"
Role = Literal["starter", "guest", "waiter"]


def root_for(state_root: str, run: str, *what: object) -> str:
    """Return the directory of a shared deployment: the same for all members of a run that want the same system."""
    digest = hashlib.sha256(json.dumps([run, *what], sort_keys=True, default=repr).encode()).hexdigest()
    return f"{state_root}/{digest[:8]}"


class PytestRun:
    """A test run, as one of its members sees it."""

    def __init__(self, leases: Leases, identity: str) -> None:
        self.leases = leases
        self.identity = identity
        self.me = ProcessIdentity.current()
        # Users can name runs as they like (--testrunuid): with slashes, or so that one name begins with another.
        self._prefix = f"run-{hashlib.sha256(identity.encode()).hexdigest()[:12]}."

    def _file(self, owner: ProcessIdentity) -> str:
        return f"{self.leases.directory}/{self._prefix}{owner.pid}{MEMBER}"

    def enter(self) -> None:
        """Become a member of the run."""
        with self.leases.exclusively():
            forget_dead_members(self.leases)
            replace_file(self._file(self.me), json.dumps(self.me.facts()))

    def members(self) -> list[ProcessIdentity]:
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

    def join(self, root: str, guardian: ProcessIdentity | None) -> Role:
        """Return the role of a member for a system of the run: to start it, to use it, or to wait and ask again."""
        with self.leases.exclusively():
            lease = self.leases.lease_of(root)
            if lease is None:
                self.leases.save(DeploymentLease(root, (self.me,), guardian, run=self.identity, phase="starting"))
                return "starter"
            return "guest" if lease.phase == "ready" else "waiter"

    def opened(self, root: str) -> None:
        """Mark a system of the run as ready for use."""
        with self.leases.exclusively():
            if lease := self.leases.lease_of(root):
                self.leases.save(replace(lease, phase="ready"))

    def leave(self) -> list[str]:
        """Stop being a member; return the systems of the run that this process has to take down, as the last member."""
        with self.leases.exclusively():
            remove(self._file(self.me))
            return self._take_over(ProcessIdentity.current()) if not self.members() else []

    def recover(self) -> list[str]:
        """Return the systems of the run that a dead member's guardian has to take down.

        While other members live, these are only those that a dead member had begun to start.
        """
        with self.leases.exclusively():
            if self.members():
                return [
                    lease.root for lease in self._leases() if lease.phase == "starting" and not starter_is_alive(lease)
                ]
            return self._take_over(ProcessIdentity.current())

    def _leases(self) -> list[DeploymentLease]:
        return [lease for lease in self.leases.all() if lease.run == self.identity]

    def _take_over(self, owner: ProcessIdentity) -> list[str]:
        """Mark the run's systems as being taken down by ``owner``, but for those that another process takes down."""
        mine = []
        for lease in self._leases():
            if lease.phase != "stopping" or not starter_is_alive(lease) or lease.users == (owner,):
                self.leases.save(replace(lease, phase="stopping", users=(owner,)))
                mine.append(lease.root)
        return mine


class SharedDeployment:
    """One system of a run, as one of its members sees it."""

    def __init__(self, run: PytestRun, root: str, patience_seconds: float) -> None:
        self.run = run
        self.root = root
        self.patience_seconds = patience_seconds

    def join(self, machine: Machine, guardian: ProcessIdentity | None) -> bool:
        """Return whether we have to start the system; if not, wait until it can be used."""
        role: Role = "waiter"

        def look() -> str:
            nonlocal role
            role = self.run.join(self.root, guardian)
            return "another member of the run is starting or stopping it" if role == "waiter" else ""

        wait_until(look, machine.deadline(self.patience_seconds), f"wait for the shared deployment {self.root}")
        return role == "starter"

    def open(self) -> None:
        """Mark the system as ready for use."""
        self.run.opened(self.root)


def starter_is_alive(lease: DeploymentLease) -> bool:
    """Tell whether the process that starts or stops a system lives."""
    return any(owner.is_alive for owner in lease.users)


def read_owner(path: str) -> ProcessIdentity | None:
    """Return the owner in the file of a member; None when it cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError), open(path, encoding="utf-8", opener=open_own) as file:
        return ProcessIdentity.read(json.load(file))
    return None


def forget_dead_members(leases: Leases) -> None:
    """Remove the files of members, of any run, that have died; call it under the lock."""
    for name in leases.names():
        path = f"{leases.directory}/{name}"
        if name.endswith(MEMBER):
            owner = read_owner(path)
            if owner is None or not owner.is_alive:
                remove(path)
        elif name.endswith(f"{MEMBER}.new"):
            remove(path)
