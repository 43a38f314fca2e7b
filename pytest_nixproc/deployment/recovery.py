"""Taking down deployments of which only the journal is left: after a crash, or when they were kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, Protocol

from pytest_nixproc.deployment import journal
from pytest_nixproc.deployment.leases import Claim, Leases
from pytest_nixproc.deployment.ownership import Owner, identity_of
from pytest_nixproc.deployment.sharing import Run
from pytest_nixproc.deployment.site import TAG, Site
from pytest_nixproc.deployment.stopping import attempt, end_strays, stop_units
from pytest_nixproc.errors import NixprocError, TeardownError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Driver, Manager, Status

CLOSE_SECONDS: Final = 2.0
ORDERLY_SECONDS: Final = 5.0
"""How long recovery asks politely; after that, everything is killed."""

BOOT: Final = "import sys; sys.path[:] = {path!r}; from pytest_nixproc.cli import main; sys.exit(main({argv!r}))"


def recovery_command(root: str) -> list[str]:
    """Return the command that takes a deployment down when its test process is gone; it needs nothing of that."""
    argv = ["recover", root]
    return [sys.executable, "-I", "-c", BOOT.format(path=[path for path in sys.path if path], argv=argv)]


class Finder(Protocol):
    """Finds managers and machines by name."""

    def manager(self, name: str) -> Manager:
        """Return a manager."""

    def machine(self, name: str) -> type[Machine]:
        """Return a machine."""


def take_down(root: str, finder: Finder, leases: Leases) -> None:
    """Stop what a journal says was started, in reverse order, with a driver made anew; then remove every trace.

    Raises :class:`~pytest_nixproc.errors.NixprocError` when there is no journal, and
    :class:`~pytest_nixproc.errors.TeardownError` with everything that was not clean.
    """
    site = Site(root)
    if not os.path.isfile(site.journal):
        raise NixprocError(f"{root} is no deployment: it has no journal", remedy="give the directory that was printed")
    record = journal.recall(site.journal)
    machine = finder.machine(record.machine if record else "host")()
    problems: list[str] = []
    try:
        if record:
            problems += undo(record, finder.manager(record.manager), machine, site)
        problems += end_strays(machine, lambda: machine.tagged(site.tag))
        machine.remove(site.root)
        leases.unclaim(root)
        site.leave()
    finally:
        machine.close()
    if problems:
        raise TeardownError(problems)


def undo(record: journal.Record, manager: Manager, machine: Machine, site: Site) -> list[str]:
    """Stop the units of a record and close its manager; return what was not clean."""
    driver = manager.driver(machine, record.target)
    deadline = machine.deadline(ORDERLY_SECONDS)
    problems: list[str] = []
    for step in reversed(record.started):
        units = {unit.name: unit for unit in step}
        pids = own_pids(driver.status(step), record.pids, machine, site)
        if pids:
            seconds = min(record.target.stop_seconds, deadline.remaining)
            problems += stop_units(driver, {name: units[name] for name in pids}, pids, seconds)
    if record.opened:
        problems += attempt(lambda: close(driver))
    return problems


def own_pids(
    statuses: Mapping[str, Status], recorded: Mapping[str, tuple[int, str]], machine: Machine, site: Site
) -> dict[str, int]:
    """Return the processes that are really ours: a PID file may name one that has only got the pid since."""
    return {
        name: status.pid
        for name, status in statuses.items()
        if status.running
        and status.pid
        and (recorded.get(name) == (status.pid, identity_of(status.pid)) or machine.has_tag(status.pid, site.tag))
    }


def close(driver: Driver) -> list[str]:
    """Bring a manager down."""
    driver.close(driver.machine.deadline(CLOSE_SECONDS))
    return []


def abandoned(leases: Leases) -> Iterator[Claim]:
    """Yield the deployments whose users and guardian are gone, and so are all members of the run that shares them."""
    for claim in leases.claims():
        if claim.is_abandoned and not (claim.run and Run(leases, claim.run).members()):
            yield claim


def take_over(leases: Leases) -> list[Claim]:
    """Become the owner of all abandoned deployments, so that no other process takes them down too; return them."""
    if not any(abandoned(leases)):
        return []
    with leases.locked():
        claims = [replace(claim, users=(Owner.current(),), guardian=None) for claim in abandoned(leases)]
        for claim in claims:
            leases.claim(claim)
        return claims


def reap(claim: Claim, finder: Finder, leases: Leases) -> list[str]:
    """Take an abandoned deployment down; return what was not clean."""
    if not os.path.isfile(Site(claim.root).journal):
        machine = finder.machine("host")()
        problems = end_strays(machine, lambda: machine.tagged(f"{TAG}={claim.root}"))
        machine.remove(claim.root)
        leases.unclaim(claim.root)
        Site(claim.root).leave()
        machine.close()
        return problems
    try:
        take_down(claim.root, finder, leases)
    except TeardownError as error:
        return list(error.problems)
    return []
