"""Forked children of the test process: what belongs to their parent is not theirs."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Anything that a forked child inherits and cannot use: connections, and locks of threads that it does not have."""

    def renew(self) -> None:
        """Make the locks anew, and close the connections."""


_renewed: WeakSet[Renewable] = WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Have a thing renewed in every forked child, for as long as there is the thing."""
    _renewed.add(thing)


def _renew_all() -> None:
    for thing in list(_renewed):
        thing.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
