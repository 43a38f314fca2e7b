"""The place where generated files will be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from pytest_nixproc.values.machine import Accounts, Facts
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.value import Value


class Target(Value):
    """The place where generated files will be used, as far as a generator may know it."""

    state: StateDirs
    directory: str
    """Directory that the files are written to."""

    identity: str = "deployment"
    """Name of the deployment, unlike any other of the machine."""

    owner: str = ""
    """Who uses the deployment, for what outlives everybody: a text of JSON, with ``user`` and ``host`` among its facts.

    No generated file holds it: they are the same for each who generates them.
    """

    facts: Facts = field(default_factory=Facts)
    force_disable_user_change: bool = True
    """Whether processes stay the calling user, whichever user the model names."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Variables for every process's environment, so that strays can be found."""

    stop_seconds: float = 10.0
    """Time that a process may take to stop."""

    accounts: Accounts = field(default_factory=Accounts)
    """The model's accounts that the machine has: in a plan those that exist already, all when files are written.

    Empty where processes do not switch users.
    """

    @property
    def serves_others(self) -> bool:
        """Whether processes may run as others than the caller: as the model's users, or as those that root's choose."""
        return not self.force_disable_user_change or self.facts.account.uid == 0
