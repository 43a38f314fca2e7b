"""Taking down deployments of which only the journal is left: after a crash, or when they were kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Protocol

from pytest_nixproc.deployment import journal
from pytest_nixproc.deployment.accounts import Accounts
from pytest_nixproc.deployment.leases import Claim, Leases
from pytest_nixproc.deployment.ownership import Owner
from pytest_nixproc.deployment.sharing import Run, starter_lives
from pytest_nixproc.deployment.site import Site
from pytest_nixproc.deployment.stopping import end_strays, stop_units
from pytest_nixproc.errors import NixprocError, TeardownError, UnknownName, Unreachable
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Driver, Manager, Status

CLOSE_SECONDS: Final = 5.0
ORDERLY_SECONDS: Final = 5.0
"""How long recovery asks politely; after that, everything is killed."""

LOCAL: Final = "host"
"""The machine on which the journals, and all processes as this host sees them, are."""

BOOT: Final = "import sys; sys.path[:] = {path!r}; from pytest_nixproc.cli import main; sys.exit(main({argv!r}))"


def recovery_command(root: str, *options: str) -> list[str]:
    """Return the command that takes a deployment down when its test process is gone; it needs nothing of that."""
    argv = ["recover", *options, root]
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
    if not os.path.isfile(Site(root).journal):
        raise NixprocError(f"{root} is no deployment: it has no journal", remedy="give the directory that was printed")
    problems = clear_away(Site(root), finder, leases)
    if machine_of_site(Site(os.path.dirname(root)), finder).throwaway:
        problems += clear_away(Site(os.path.dirname(root)), finder, leases)
    if problems:
        raise TeardownError(problems)


def clear_away(site: Site, finder: Finder, leases: Leases) -> list[str]:
    """Take down what is left of a deployment, or of a throwaway machine; return what was not clean.

    Numbers of processes that the journal of a deployment on a throwaway machine holds are none of this host's; what
    ran there needs no orderly end, and is seen from here by its tag.
    """
    kind = machine_of_site(site, finder)
    machine = finder.machine(LOCAL)()
    is_complete = True
    try:
        if kind.throwaway:
            end_strays(machine, lambda: machine.tagged(site.tag))
            problems = kind.clear_away(site.root)
        else:
            problems, is_complete = undo_as_far_as_possible(finder, machine, site)
            problems += end_strays(machine, lambda: machine.tagged(site.tag))
        if is_complete:
            machine.remove(site.root)
            problems += despite(Accounts(machine, leases, site.root).release)
            problems += despite(lambda: give_back(leases, site))
    finally:
        machine.close()
    return problems


def machine_of_site(site: Site, finder: Finder) -> type[Machine]:
    """Return the kind of machine that a site is on, or is the place of: this host, unless its journal says it."""
    try:
        return finder.machine(journal.machine_of(site.journal) or LOCAL)
    except (UnknownName, OSError, ValueError, TypeError):
        return finder.machine(LOCAL)


def undo_as_far_as_possible(finder: Finder, machine: Machine, site: Site) -> tuple[list[str], bool]:
    """Undo what the journal says; return what was not clean, and whether that was all that can ever be done."""
    try:
        return despite(lambda: undo_all(finder, machine, site)), True
    except Unreachable as error:
        return [f"{error}\n  {site.root} is kept until it is back"], False


def despite(action: Callable[[], list[str]]) -> list[str]:
    """Do one part; whatever fails in it becomes a problem: a journal or a driver that is broken must not stop us.

    Raises :class:`~pytest_nixproc.errors.Unreachable`: then there is something that only a later try can do.
    """
    try:
        return action()
    except Unreachable:
        raise
    except Exception as error:  # noqa: BLE001 - the parts that end processes have still to come
        return [str(error) if isinstance(error, NixprocError) else f"{type(error).__name__}: {error}"]


def give_back(leases: Leases, site: Site) -> list[str]:
    """Remove the leases, and directories that are empty then."""
    leases.unclaim(site.root)
    site.leave()
    return []


def undo_all(finder: Finder, machine: Machine, site: Site) -> list[str]:
    """Undo what the journal says, if there is one that says anything."""
    record = journal.recall(site.journal) if os.path.isfile(site.journal) else None
    return undo(record, finder.manager(record.manager), machine, site) if record else []


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
        problems += close(driver)
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
        and (recorded.get(name) == (status.pid, machine.identity(status.pid)) or machine.has_tag(status.pid, site.tag))
    }


def close(driver: Driver) -> list[str]:
    """Bring a manager down; raises :class:`~pytest_nixproc.errors.Unreachable`."""
    try:
        driver.close(driver.machine.deadline(CLOSE_SECONDS))
    except Unreachable:
        raise
    except (NixprocError, OSError) as error:
        return [str(error)]
    return []


def abandoned(leases: Leases) -> Iterator[Claim]:
    """Yield the deployments that nobody will take down any more.

    That is when their users and guardian are gone; for those that a run shares, when its members are gone: guardians
    stay with processes that were handed over to others.
    """
    for claim in leases.claims():
        if not claim.run:
            gone = claim.is_abandoned
        else:
            gone = not claim.kept and not starter_lives(claim) and not Run(leases, claim.run).members()
        if gone:
            yield claim


def take_over(leases: Leases) -> list[Claim]:
    """Become the owner of all abandoned deployments, so that no other process takes them down too; return them."""
    return [claim for claim in abandoned(leases) if adopt(claim, leases)]


def reap(claim: Claim, finder: Finder, leases: Leases) -> list[str]:
    """Take an abandoned deployment down, unless somebody else is at it; return what was not clean."""
    return clear_away(Site(claim.root), finder, leases) if adopt(claim, leases) else []


def adopt(claim: Claim, leases: Leases) -> bool:
    """Make a deployment ours to take down; tell whether it is."""
    me = (Owner.current(),)
    with leases.exclusively():
        now = leases.claim_of(claim.root)
        if now is None or (now.phase == "stopping" and now.users != me and starter_lives(now)):
            return False
        leases.claim(replace(now, users=me, phase="stopping"))
        return True
