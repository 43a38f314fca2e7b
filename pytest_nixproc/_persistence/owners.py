"""The owners of a deployment as its journal names them: for one whose lease is gone.

Programs that clean /tmp up remove leases of tests that run for days. The journal is beside the state, and says the same
once more: each process that uses the deployment, and the guardian that takes it down when that is gone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Self

from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import Journal, events, first_event, place_of
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.process_identity import ProcessIdentity, host_name
from pytest_nixproc._persistence.trust import stranger_on_the_way
from pytest_nixproc.values.value import Value

NO_JOURNAL: Final = "it has no journal of ours"
NOBODY_KNOWS: Final = "nothing says whose it is"
USED: Final = "used"
KEPT: Final = "kept"
NAME: Final = re.compile("[0-9a-f]{8}")
"""The names of deployments' directories."""


def sign(journal: Journal, guardian: ProcessIdentity | None) -> None:
    """Write down that this process uses a deployment."""
    me = ProcessIdentity.current().facts()
    journal.write(USED, host=host_name(), user=me, guardian=guardian and guardian.facts())


def note_kept(journal: Journal) -> None:
    """Write down that a deployment, or its state, is to stay when nobody uses it any more."""
    journal.write(KEPT)


def own_text() -> str:
    """Return who we are, for what has a label instead of a journal."""
    return json.dumps({"user": os.getuid(), "host": host_name(), **ProcessIdentity.current().facts()})


def owner_in(text: str) -> ProcessIdentity | None:
    """Return the process in a text of :func:`own_text`; None for one of another user or machine, or of no such form."""
    with suppress(ValueError, TypeError, KeyError):
        facts = json.loads(text)
        if (facts["user"], facts["host"]) == (os.getuid(), host_name()):
            return ProcessIdentity.read(facts)
    return None


class Ownership(Value):
    """The owners of a deployment, as its journal names them."""

    users: tuple[ProcessIdentity, ...]
    guardians: tuple[ProcessIdentity, ...]
    hosts: frozenset[str]
    kept: bool

    @classmethod
    def of(cls, root: str) -> Self | None:
        """Return the owners of a deployment; None where its journal does not begin as that of this directory."""
        path = DeploymentDirectory(root).journal
        if place_of(first_event(path)) != root:
            return None
        said: list[Mapping[str, Any]] = []
        with suppress(OSError, ValueError):
            said = [event for event in events(path) if isinstance(event, dict) and event.get("event") in (USED, KEPT)]
        signed = [event for event in said if event["event"] == USED]
        users = tuple(ProcessIdentity.read(event["user"]) for event in signed)
        guardians = tuple(ProcessIdentity.read(event["guardian"]) for event in signed if event["guardian"])
        return cls(users, guardians, frozenset(str(event["host"]) for event in signed), len(said) > len(signed))

    @property
    def doubt(self) -> str:
        """Why the deployment is not surely one that its owners have lost; empty if it is, once they are dead."""
        if self.kept:
            return "it was kept"
        if not self.users:
            return NOBODY_KNOWS
        return "" if self.hosts == {host_name()} else "it is of another machine"

    def lease(self, root: str) -> DeploymentLease:
        """Return the lease that the deployment would have."""
        return DeploymentLease(root, (*self.users, *self.guardians))


class Stranded(Value):
    """A deployment's directory without a lease."""

    root: str
    lease: DeploymentLease | None
    """The lease that it would have; None where nobody may take it down unasked."""

    doubt: str = ""
    """Why nobody may."""

    @property
    def remedy(self) -> str:
        """The command by which people remove it."""
        return f"{'rm -r' if self.doubt == NO_JOURNAL else 'nixproc end'} {self.root}"


def stranded(state_roots: Iterable[str], leases: Leases) -> Iterator[Stranded]:
    """Yield the directories in state roots that no lease names, but for those that somebody uses."""
    for parent in dict.fromkeys(state_roots):
        names: list[str] = []
        with suppress(OSError):
            names = sorted(name for name in os.listdir(parent) if NAME.fullmatch(name))
        # Leases are taken before directories are made: in this order, nothing new is taken for lost.
        leased = {lease.root for lease in leases.all()}
        roots = [root for name in names if (root := f"{parent}/{name}") not in leased and os.path.isdir(root)]
        stranger = stranger_on_the_way(parent) if roots else ""
        for root in roots:
            if found := Stranded(root, None, stranger) if stranger else judged(root):
                yield found


def judged(root: str) -> Stranded | None:
    """Return what there is to do about a directory without a lease; None if somebody uses it, or it is gone."""
    owners = owners_of(root)
    if owners is None:
        return Stranded(root, None, NO_JOURNAL) if os.path.isdir(root) else None
    if owners.doubt:
        return Stranded(root, None, owners.doubt)
    lease = owners.lease(root)
    return Stranded(root, lease) if lease.is_abandoned else None


def owners_of(root: str) -> Ownership | None:
    """Return the owners of a deployment; None where nothing of that kind is readable."""
    try:
        return Ownership.of(root)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
