"""Stopping with growing force: the manager's own stop, SIGTERM, SIGKILL of the whole process tree."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from pytest_nixproc.errors import NixprocError, WaitTimeout
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import descendants
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.api import Driver, Unit

STRAY_SECONDS: Final = 10.0
ROUND_SECONDS: Final = 0.5
FORCES: Final = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0))


def attempt(action: Callable[[], list[str]]) -> list[str]:
    """Do one part of a teardown; its failure becomes a problem, so that the other parts are done too."""
    try:
        return action()
    except (NixprocError, OSError) as error:
        return [str(error)]


def stop_units(driver: Driver, units: Mapping[str, Unit], pids: Mapping[str, int], seconds: float) -> list[str]:
    """Stop units side by side; return what was not clean.

    ``pids`` are the main processes as last seen, by instance: they are what has to be gone afterwards.
    """
    machine = driver.machine
    ended_before = machine.ended(pids.values())
    problems = attempt(lambda: ask_to_stop(driver, list(units.values()), seconds))
    ended = machine.ended(pids.values())
    machine.catch_up()
    for name, pid in pids.items():
        if pid in ended_before:
            continue
        if pid in ended:
            problems += attempt(partial(manner_of_end, driver, units[name], name, pid, seconds))
        else:
            problems += force(machine, name, pid, seconds)
    return problems


def manner_of_end(driver: Driver, unit: Unit, name: str, pid: int, seconds: float) -> list[str]:
    """Return what was not clean about the end of a process that its manager has stopped."""
    killed = driver.exit_status(unit, pid) == -signal.SIGKILL
    return [f"{name} did not stop within {seconds:g} s and was killed by its manager"] if killed else []


def ask_to_stop(driver: Driver, units: Sequence[Unit], seconds: float) -> list[str]:
    """Have the manager stop units."""
    driver.deactivate(units, driver.machine.deadline(seconds))
    return []


def force(machine: Machine, name: str, pid: int, seconds: float) -> list[str]:
    """End a process that its manager did not stop in time; return what had to be done."""
    brief = f"{name} did not stop within {seconds:g} s"
    tree = [pid, *descendants([pid], machine.parents())]
    for number, limit in FORCES:
        for member in tree:
            machine.signal(member, number)
        if all_ended(machine, tree, machine.deadline(limit)):
            # It may have been its manager that killed it, in the same moment.
            machine.catch_up()
            killed = machine.exit_status(pid) == -signal.SIGKILL
            return [f"{brief} and was ended by {signal.SIGKILL.name if killed else number.name}"]
    return [f"{brief}, and process {pid} survives SIGKILL"]


def all_ended(machine: Machine, pids: Sequence[int], deadline: Deadline) -> bool:
    """Wait for processes to end; tell whether they did."""

    def look() -> str:
        return ", ".join(map(str, sorted(set(pids) - machine.ended(pids))))

    try:
        wait_until(look, deadline, "wait for processes to end")
    except WaitTimeout:
        return False
    return True


def end_strays(machine: Machine, look: Callable[[], list[int]]) -> list[str]:
    """Kill the processes that ``look`` finds, until it finds none; return what was there.

    All of them are frozen before the first is killed, so that they cannot fork faster than they die.
    """
    problems: dict[int, str] = {}
    deadline = machine.deadline(STRAY_SECONDS)
    while (strays := look()) and deadline.remaining:
        for pid in strays:
            problems.setdefault(pid, f"process {pid} was left behind, and killed: {machine.describe(pid)}")
            machine.signal(pid, signal.SIGSTOP)
        for pid in strays:
            machine.signal(pid, signal.SIGKILL)
        all_ended(machine, strays, machine.deadline(ROUND_SECONDS))
    return list(problems.values())
