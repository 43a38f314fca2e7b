"""What managers have of deployments whose directory is gone: they outlive everybody, and say themselves whose it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._persistence.owners import NOBODY_KNOWS, owner_in, owners_of
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.managers.api import Belonging, Manager
from pytest_nixproc.values.value import Value


class Orphan(Value):
    """Something of a deployment that nobody takes down any more."""

    belonging: Belonging
    doubt: str
    """Why nobody may remove it unasked; empty if it is surely ours, and its owner dead."""

    @property
    def name(self) -> str:
        """What it is, and of which deployment."""
        return f"{self.belonging.what} of {self.belonging.root}"

    def remove(self) -> list[str]:
        """Remove it; return the problems."""
        try:
            self.belonging.remove()
        except (NixprocError, OSError) as error:
            return [f"{error}\nfix: {self.belonging.remedy}"]
        return []


def orphans(managers: Iterable[Manager], leases: Leases) -> Iterator[Orphan]:
    """Yield what managers have of deployments that have neither lease nor directory."""
    for manager in managers:
        for belonging in manager.belongings():
            # What was begun while the manager was asked has a lease by now.
            doubt = doubt_about(belonging, {lease.root for lease in leases.all()})
            if doubt is not None:
                yield Orphan(belonging, doubt)


def doubt_about(belonging: Belonging, leased: Collection[str]) -> str | None:
    """Return why something may not be removed unasked, empty if it may; None for what is somebody's business."""
    root = belonging.root
    # What earlier versions have made without saying where may be in use.
    if not root or root in leased:
        return None
    owner = owner_in(belonging.owner)
    if owner is None:
        # What others have made says so; what earlier versions have made does not.
        return None if belonging.owner or os.path.lexists(root) else NOBODY_KNOWS
    if owner.is_alive:
        return None
    if not os.path.lexists(root):
        return ""
    owners = owners_of(root)
    if owners is not None and not owners.lease(root).is_abandoned:
        return None
    return f"its deployment is still there: nixproc reap --state-root={os.path.dirname(root)}"
