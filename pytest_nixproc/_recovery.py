"""The teardown of deployments of which only the journal is left: after a crash, or when they were kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Final, Protocol

from pytest_nixproc._deployment.accounts import AccountProvisioner
from pytest_nixproc._deployment.leftovers import end_all, end_left_behind, still_running
from pytest_nixproc._deployment.unit_stop import UnitStop
from pytest_nixproc._persistence import journal
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.owners import owners_of
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._persistence.shared_deployments import PytestRun, starter_is_alive
from pytest_nixproc._persistence.trust import stranger_on_the_way
from pytest_nixproc.errors import NixprocError, TeardownError, UnknownName, Unreachable, Unremovable
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import is_stopped
from pytest_nixproc.managers.api import Driver, Manager
from pytest_nixproc.values.units import Status

CLOSE_SECONDS: Final = 5.0
WOKEN_SECONDS: Final = 30.0
"""How long a guardian that was frozen may take to end what it guards."""

LOCAL: Final = "host"
"""The machine on which the journals, and all processes as this host sees them, are."""

GIVE_THE_PRINTED: Final = "give the directory that was printed when the system was kept"


class Finder(Protocol):
    """The finder of managers and machines, by their names."""

    def manager(self, name: str) -> Manager:
        """Return a manager."""

    def machine(self, name: str) -> type[Machine]:
        """Return a machine."""


def named_directory(directory: str) -> DeploymentDirectory:
    """Return the deployment or throwaway machine in a directory; raises unless it is surely one of ours.

    It has to be ours, where nobody else could have put it, and its journal has to begin with its own path.
    """
    real = os.path.realpath(directory)
    path = DeploymentDirectory(real).journal
    if not os.path.isfile(path):
        raise NixprocError(f"{directory} is no deployment: it has no journal", remedy=GIVE_THE_PRINTED)
    for place in (real, path):
        if (owner := os.lstat(place).st_uid) != os.geteuid():
            raise NixprocError(f"{place} belongs to user {owner}", remedy="have that user stop it")
    refuse_strangers(real)
    root = journal.place_of(journal.first_event(path))
    if not root or os.path.realpath(root) != real:
        brief = f"{directory} is no deployment: its journal does not begin with the beginning of one in this directory"
        raise NixprocError(brief, remedy=GIVE_THE_PRINTED)
    return DeploymentDirectory(root)


def refuse_strangers(root: str) -> None:
    """Raise if another user could have put a deployment where it is: what its journal says would be run as us."""
    if stranger := stranger_on_the_way(os.path.dirname(root)):
        remedy = "see what is there, and whose it is, and remove it by hand"
        raise NixprocError(f"nothing in {root} is believed: {stranger}", remedy=remedy)


def take_down(root: str, finder: Finder, leases: Leases) -> None:
    """Stop the units that a journal names as started, in reverse order, with a new driver; then remove everything.

    The directory is removed whatever is in it: a lease has to vouch for it, or :func:`named_directory`. Raises
    :class:`~pytest_nixproc.errors.TeardownError` with everything that was not clean.
    """
    outer = machine_around(DeploymentDirectory(root), finder)
    problems = clear_away(DeploymentDirectory(root), finder, leases)
    if outer:
        problems += clear_away(outer, finder, leases)
    if problems:
        raise TeardownError(problems)


def machine_around(directory: DeploymentDirectory, finder: Finder) -> DeploymentDirectory | None:
    """Return the place of the throwaway machine that a deployment is on, where both of their journals say so."""
    outer = DeploymentDirectory(os.path.dirname(directory.root))
    event = journal.first_event(outer.journal)
    if event.get("event") != "machine" or event.get("machine") != journal.first_event(directory.journal).get("machine"):
        return None
    return named_directory(outer.root) if machine_of(outer, finder).throwaway else None


def clear_away(directory: DeploymentDirectory, finder: Finder, leases: Leases, *, is_heard: bool = True) -> list[str]:
    """Take down the remains of a deployment, or of a throwaway machine; return the problems, if anybody hears of them.

    Of one whose rest could not be removed before, there is only that. Numbers of processes that the journal of a
    deployment on a throwaway machine holds are none of this host's; what ran there needs no orderly end, and is seen
    from here by its tag.
    """
    machine = finder.machine(LOCAL)()
    strays = partial(machine.processes.tagged, directory.tag)
    is_complete = True
    problems: list[str] = []
    try:
        try:
            refuse_strangers(directory.root)
        except NixprocError as error:
            # Whose processes carry the tag is told by the kernel alone.
            end_all(machine, strays, directory.tag)
            return [str(error)]
        kind = machine_of(directory, finder)
        if rest_of(directory.root, leases):
            pass
        elif kind.throwaway:
            end_all(machine, strays, directory.tag)
            problems = kind.clear_away(directory.root)
        else:
            problems, is_complete = undo_as_far_as_possible(finder, machine, directory)
            problems += [leftover.problem for leftover in end_left_behind(machine, strays, directory.tag)]
        if stuck := still_running(strays):
            problems += stuck
        elif is_complete:
            problems += collect_any_problems(AccountProvisioner(machine, leases, directory.root).release)
            problems += collect_any_problems(lambda: remove(machine, leases, directory, is_heard=is_heard))
    finally:
        machine.lifecycle.close()
    return problems


def machine_of(directory: DeploymentDirectory, finder: Finder) -> type[Machine]:
    """Return the kind of machine that a deployment is on: this host, unless its journal says another."""
    try:
        return finder.machine(journal.machine_of(directory.journal) or LOCAL)
    except (UnknownName, OSError, ValueError, TypeError):
        return finder.machine(LOCAL)


def undo_as_far_as_possible(finder: Finder, machine: Machine, directory: DeploymentDirectory) -> tuple[list[str], bool]:
    """Undo the deployment of a journal; return the problems, and whether nothing is left for a later try."""
    try:
        return collect_any_problems(lambda: undo(finder, machine, directory)), True
    except Unreachable as error:
        return [f"{error}\n  {directory.root} is kept until it is back"], False


def collect_any_problems(action: Callable[[], list[str]]) -> list[str]:
    """Do one part; any failure in it becomes a problem: a broken journal or driver must not stop the other parts.

    Raises :class:`~pytest_nixproc.errors.Unreachable`: then there is something that only a later try can do.
    """
    try:
        return action()
    except Unreachable:
        raise
    except Exception as error:  # noqa: BLE001 - the parts that end processes have still to come
        return [problem_of(error)]


def problem_of(error: Exception) -> str:
    """Return the text of an error, with its kind if it is none of ours."""
    return str(error) if isinstance(error, NixprocError) else f"{type(error).__name__}: {error}"


def rest_of(root: str, leases: Leases) -> str:
    """Return what cannot be removed of a deployment, of which all else is gone; empty as long as nothing is known."""
    lease = leases.lease_of(root)
    return lease.rest if lease else ""


def remove(machine: Machine, leases: Leases, directory: DeploymentDirectory, *, is_heard: bool) -> list[str]:
    """Remove the directory, and then the leases; where something stays, a lease says so; return what."""
    try:
        machine.files.remove(directory.root)
    except Unremovable as error:
        leases.leave_rest(directory.root, str(error), told=is_heard)
        return [str(error)]
    leases.remove(directory.root)
    directory.leave()
    return []


def undo(finder: Finder, machine: Machine, directory: DeploymentDirectory) -> list[str]:
    """Stop the units of a journal, if there is one, and close their manager; return the problems."""
    record = journal.recall(directory.journal) if os.path.isfile(directory.journal) else None
    if record is None:
        return []
    driver = finder.manager(record.manager).driver(machine, record.target)
    problems: list[str] = []
    for step in reversed(record.started):
        pids = own_pids(driver.status(step), record.pids, machine, directory)
        living = sorted((unit for unit in step if unit.name in pids), key=record.limit_of)
        for seconds, units in groupby(living, record.limit_of):
            by_name = {unit.name: unit for unit in units}
            own = {name: pids[name] for name in by_name}
            problems += UnitStop(driver, by_name, own, seconds).carry_out()
    if record.opened:
        problems += close(driver)
    return problems


def own_pids(
    statuses: Mapping[str, Status],
    recorded: Mapping[str, tuple[int, str]],
    machine: Machine,
    directory: DeploymentDirectory,
) -> dict[str, int]:
    """Return the processes that are really ours: a PID file may name a later process with the same pid."""
    return {
        name: status.pid
        for name, status in statuses.items()
        if status.running
        and status.pid
        and (
            recorded.get(name) == (status.pid, machine.processes.identity(status.pid))
            or machine.processes.has_tag(status.pid, directory.tag)
        )
    }


def close(driver: Driver) -> list[str]:
    """Stop a manager, and return the problems; raises :class:`~pytest_nixproc.errors.Unreachable`."""
    try:
        driver.close(driver.machine.deadline(CLOSE_SECONDS))
    except Unreachable:
        raise
    except (NixprocError, OSError) as error:
        return [str(error)]
    return []


def abandoned(leases: Leases) -> Iterator[DeploymentLease]:
    """Yield the deployments that nobody will take down any more.

    That is when their users and guardian are gone; for those that a run shares, when its members are gone: guardians
    stay with processes that were handed over to others. Those of which a rest cannot be removed are none of them.
    """
    for lease in leases.all():
        if not lease.run:
            gone = lease.is_abandoned
        else:
            gone = not lease.kept and not starter_is_alive(lease) and not PytestRun(leases, lease.run).members()
        if gone and not lease.rest:
            yield lease


def rests(leases: Leases) -> Iterator[DeploymentLease]:
    """Yield the deployments of which a rest cannot be removed, but for those that somebody else tries at this moment.

    A rest that people have removed themselves is forgotten.
    """
    for lease in leases.all():
        if lease.rest and lease.is_abandoned:
            if os.path.lexists(lease.root):
                yield lease
            else:
                leases.remove(lease.root)


def frozen_guardians(leases: Leases) -> list[DeploymentLease]:
    """Return the deployments whose test process has ended, and whose guardian does nothing: somebody has stopped it."""
    return [
        lease
        for lease in leases.all()
        if not lease.kept and not any(user.is_alive for user in lease.users)
        if lease.guardian and lease.guardian.is_alive and is_stopped(lease.guardian.pid)
    ]


def wake_guardians(finder: Finder, leases: Leases) -> list[str]:
    """Have frozen guardians go on, and wait until they have taken their deployments down; return what was done."""
    told: list[str] = []
    if not (frozen := frozen_guardians(leases)):
        return told
    with finder.machine(LOCAL)() as machine:
        for pid in {lease.guardian.pid for lease in frozen if lease.guardian}:
            machine.processes.signal(pid, signal.SIGCONT)
        deadline = machine.deadline(WOKEN_SECONDS)
        for lease in frozen:
            done = deadline.until(partial(is_done_with, lease, leases))
            pid = lease.guardian.pid if lease.guardian else 0
            told.append(
                f"woke process {pid}, the guardian of {lease.root}, which somebody had stopped"
                if done
                else f"process {pid}, the guardian of {lease.root}, does not go on: kill -KILL {pid}, then nixproc reap"
            )
    return told


def is_done_with(lease: DeploymentLease, leases: Leases) -> bool:
    """Tell whether a guardian has ended, or has taken a deployment down."""
    return leases.lease_of(lease.root) is None or not (lease.guardian and lease.guardian.is_alive)


def take_over(leases: Leases) -> list[DeploymentLease]:
    """Become the owner of all abandoned deployments, so that no other process takes them down too; return them."""
    return [lease for lease in abandoned(leases) if adopt(lease, leases)]


def reap(lease: DeploymentLease, finder: Finder, leases: Leases, *, is_heard: bool = True) -> list[str]:
    """Take an abandoned deployment down, unless another process does; return the problems, whatever they are."""
    try:
        if not adopt(lease, leases):
            return []
        return clear_away(DeploymentDirectory(lease.root), finder, leases, is_heard=is_heard)
    except Exception as error:  # noqa: BLE001 - one that is strange must not keep the others
        return [problem_of(error)]


def reap_all(finder: Finder, leases: Leases) -> list[str]:
    """Take down the remains of crashed runs; return a message for each, and the problems.

    What cannot be removed is told of once, and not tried again: that is for ``reap``, when somebody has done something.
    """
    told = wake_guardians(finder, leases)
    for lease in take_over(leases):
        problems = reap(lease, finder, leases)
        verb = "could not remove" if leases.lease_of(lease.root) else "took down"
        told += [f"{verb} what an earlier run has left in {lease.root}", *problems]
    for lease in rests(leases):
        if not lease.told:
            told += [f"could not remove what an earlier run has left in {lease.root}", lease.rest]
            leases.save(replace(lease, told=True))
    return told


def lost(root: str, *, is_alone: bool) -> DeploymentLease | None:
    """Return the lease that a deployment without one would have, whose guardian asks: its own test process is dead.

    None if others use it, by its journal, unless that process was alone; and if it was kept.
    """
    owners = owners_of(root)
    if is_alone:
        is_ours = os.path.isdir(root) and not os.path.islink(root) and os.lstat(root).st_uid == os.geteuid()
        return DeploymentLease(root, ()) if is_ours and not (owners and owners.kept) else None
    if owners is None or owners.doubt or any(user.is_alive for user in owners.users):
        return None
    return owners.lease(root)


def adopt(lease: DeploymentLease, leases: Leases) -> bool:
    """Make a deployment ours to take down; tell whether it is. One that has lost its lease gets it again."""
    me = (ProcessIdentity.current(),)
    with leases.exclusively():
        now = leases.lease_of(lease.root)
        if now is None and os.path.isdir(lease.root):
            now = lease
        if now is None or (now.phase == "stopping" and now.users != me and starter_is_alive(now)):
            return False
        leases.save(replace(now, users=me, phase="stopping"))
        return True
