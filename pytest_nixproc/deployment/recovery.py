"""Taking down a deployment of which only the journal is left."""

from __future__ import annotations

import os
from typing import Protocol

from pytest_nixproc.deployment import journal
from pytest_nixproc.deployment.site import Site
from pytest_nixproc.deployment.stopping import attempt, end_strays, stop_units
from pytest_nixproc.errors import NixprocError, TeardownError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager

CLOSE_SECONDS = 10.0


class Finder(Protocol):
    """Finds managers and machines by name."""

    def manager(self, name: str) -> Manager:
        """Return a manager."""

    def machine(self, name: str) -> type[Machine]:
        """Return a machine."""


def take_down(root: str, finder: Finder) -> None:
    """Stop what a journal says was started, in reverse order, with a driver made anew; then remove the directory.

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
            problems = undo(record, finder.manager(record.manager), machine)
            problems += end_strays(machine, site.tag)
        machine.remove(site.root)
        site.leave()
    finally:
        machine.close()
    if problems:
        raise TeardownError(problems)


def undo(record: journal.Record, manager: Manager, machine: Machine) -> list[str]:
    """Stop the units of a record and close its manager; return what was not clean."""
    driver = manager.driver(machine, record.target)
    problems: list[str] = []
    for step in reversed(record.started):
        units = {unit.name: unit for unit in step}
        statuses = driver.status(step)
        pids = {name: status.pid for name, status in statuses.items() if status.running and status.pid}
        problems += stop_units(driver, units, pids, record.target.stop_seconds)
    if record.opened:
        problems += attempt(lambda: close(manager, machine, record))
    return problems


def close(manager: Manager, machine: Machine, record: journal.Record) -> list[str]:
    """Bring a manager down."""
    manager.driver(machine, record.target).close(machine.deadline(CLOSE_SECONDS))
    return []
