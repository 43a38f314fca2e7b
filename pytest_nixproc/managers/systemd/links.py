"""Links to the units of a deployment, by which a shared systemd, the machine's or the session's, finds them."""

from __future__ import annotations

from typing import Final

from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.systemd.commands import Commands
from pytest_nixproc.managers.systemd.generator import UNITS, prefix
from pytest_nixproc.managers.systemd.scope import SystemdScope
from pytest_nixproc.values.target import Target

LINK: Final = 'mkdir -p -- "$2" && ln -s -f -- "$1"/* "$2"/'
UNLINK: Final = 'rm -f -- "$1/$2"[-.]*'


class Links:
    """The links in the directory where a shared systemd looks for units."""

    def __init__(self, target: Target, commands: Commands) -> None:
        self.target = target
        self.commands = commands

    def make(self, scope: SystemdScope, deadline: Deadline) -> None:
        """Make the links, so that systemd finds the units.

        systemd looks for units that it does not know; to have it read all again would make it forget how others have
        failed.
        """
        self.commands.shell(deadline, LINK, f"{self.target.directory}/{UNITS}", scope.links)

    def remove(self, scope: SystemdScope, deadline: Deadline) -> None:
        """Remove all links of the deployment."""
        self.commands.shell(deadline, UNLINK, scope.links, prefix(self.target))
