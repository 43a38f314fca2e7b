"""Throwaway machines: booted for a system, guarded like one, and gone with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from pytest_nixproc._deployment.problems import collect_problems
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import Journal, begin_machine
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.owners import note_kept, sign
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._persistence.recovery_command import recovery_command
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc.errors import TeardownError, Unremovable
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.values.machine import MachineSpec


@contextmanager
def boot_machine(
    kind: type[Machine],
    leases: Leases,
    settings: Settings,
    *,
    private_network: bool = False,
    needed: tuple[str, ...] = (),
) -> Iterator[Machine]:
    """Boot a throwaway machine for the time of a ``with`` block; one that was released by then lives on.

    The ``needed`` paths of this host can be seen there. Raises :class:`~pytest_nixproc.errors.MachineError` when it
    cannot be booted, and at the end when it had died; :class:`~pytest_nixproc.errors.TeardownError` when something of
    it stays.
    """
    owner = ProcessIdentity.current()
    directory = DeploymentDirectory.allocate(settings.state_root)
    machine = kind(MachineSpec(directory.root, directory.tag, private_network, needed))
    guardian = take_lease(machine, directory, leases)
    try:
        # Users of the machine's own have to pass through it to their systems.
        directory.make(for_others=True, within=os.path.dirname(directory.root))
        with closing(begin_machine(directory.journal, machine.name)) as journal:
            sign(journal, guardian)
        machine.start()
        yield machine
    except BaseException:
        if owner == ProcessIdentity.current():
            with settings.uninterrupted():
                destroy_machine(machine, directory, leases)
        raise
    if owner != ProcessIdentity.current():
        # A forked child, which does not end what its parent has booted.
        return
    with settings.uninterrupted():
        if machine.lifecycle.is_released:
            keep_machine(machine, directory, leases)
        else:
            failure = machine.lifecycle.failure
            problems = destroy_machine(machine, directory, leases)
            if failure:
                raise failure
            if problems:
                raise TeardownError(problems)


def take_lease(machine: Machine, directory: DeploymentDirectory, leases: Leases) -> ProcessIdentity | None:
    """Give a machine to the guardian and lease its place, before anything is done for it; return the guardian."""
    pid = machine.lifecycle.guard(directory.root, recovery_command(directory.root, leases, "--alone"))
    guardian = ProcessIdentity.of(pid) if pid else None
    leases.save(DeploymentLease(directory.root, (ProcessIdentity.current(),), guardian))
    return guardian


def keep_machine(machine: Machine, directory: DeploymentDirectory, leases: Leases) -> None:
    """Let a machine live on, with the systems on it that are kept."""
    leases.save(DeploymentLease(directory.root, (), kept=True))
    with closing(Journal(directory.journal)) as journal:
        note_kept(journal)
    machine.lifecycle.unguard(directory.root)
    machine.lifecycle.close()


def destroy_machine(machine: Machine, directory: DeploymentDirectory, leases: Leases) -> list[str]:
    """End a machine and remove everything of it; return the problems."""
    problems = collect_problems(lambda: forget_machine(machine, directory, leases))
    machine.lifecycle.close()
    return problems


def forget_machine(machine: Machine, directory: DeploymentDirectory, leases: Leases) -> list[str]:
    """End a machine, and give back its lease and its directory; return the problems."""
    problems = collect_problems(machine.lifecycle.destroy)
    if problems:
        # That the guardian is gone is found out by one request; the next one is for its successor.
        problems += collect_problems(machine.lifecycle.destroy)
    problems += machine.clear_away(directory.root)
    try:
        directory.remove()
    except Unremovable as error:
        problems.append(str(error))
        leases.leave_rest(directory.root, str(error), told=True)
    else:
        leases.remove(directory.root)
    problems += collect_problems(lambda: machine.lifecycle.unguard(directory.root))
    directory.leave()
    return problems
