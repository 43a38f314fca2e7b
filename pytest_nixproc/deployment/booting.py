"""Throwaway machines: booted for a system, guarded like one, and gone with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_nixproc.deployment.journal import begin_machine
from pytest_nixproc.deployment.leases import Claim, Leases
from pytest_nixproc.deployment.ownership import Owner
from pytest_nixproc.deployment.planner import Settings
from pytest_nixproc.deployment.recovery import recovery_command
from pytest_nixproc.deployment.site import Site
from pytest_nixproc.deployment.stopping import attempt
from pytest_nixproc.errors import TeardownError
from pytest_nixproc.machines.api import Machine, Place


@contextmanager
def booted(
    kind: type[Machine], leases: Leases, settings: Settings, *, private_network: bool = False
) -> Iterator[Machine]:
    """Have a machine of its own for the time of a ``with`` block; one that was released by then lives on.

    Raises :class:`~pytest_nixproc.errors.MachineError` when it cannot be booted, and at the end when it had died;
    :class:`~pytest_nixproc.errors.TeardownError` when something of it stays.
    """
    site = Site.choose(settings.state_root)
    machine = kind(Place(site.root, site.tag, private_network))
    claim(machine, site, leases)
    try:
        # Users of the machine's own have to pass through it to their systems.
        site.make(for_others=True, within=os.path.dirname(site.root))
        begin_machine(site.journal, machine.name)
        machine.start()
        yield machine
    except BaseException:
        with settings.uninterrupted():
            take_away(machine, site, leases)
        raise
    with settings.uninterrupted():
        if machine.is_released:
            leave(machine, site, leases)
        else:
            loss = machine.loss
            problems = take_away(machine, site, leases)
            if loss:
                raise loss
            if problems:
                raise TeardownError(problems)


def claim(machine: Machine, site: Site, leases: Leases) -> None:
    """Give a machine to the guardian and lease its place, before anything is done for it."""
    guardian = machine.guard(site.root, recovery_command(site.root))
    leases.claim(Claim(site.root, (Owner.current(),), Owner.of(guardian) if guardian else None))


def leave(machine: Machine, site: Site, leases: Leases) -> None:
    """Let a machine live on, with the systems on it that are kept."""
    leases.claim(Claim(site.root, (), kept=True))
    machine.unguard(site.root)
    machine.close()


def take_away(machine: Machine, site: Site, leases: Leases) -> list[str]:
    """End a machine and remove every trace; return what was not clean."""
    problems = attempt(lambda: forget(machine, site, leases))
    machine.close()
    return problems


def forget(machine: Machine, site: Site, leases: Leases) -> list[str]:
    """Put a machine down, and give back what was leased for it."""
    machine.put_down()
    problems = machine.clear_away(site.root)
    site.remove()
    leases.unclaim(site.root)
    machine.unguard(site.root)
    site.leave()
    return problems
