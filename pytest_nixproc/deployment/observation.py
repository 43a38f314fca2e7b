"""Looking at a running system: one round over the machine for all instances."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from pytest_nixproc.checks.api import Snapshot, ToldPidFile
from pytest_nixproc.checks.claims import Told
from pytest_nixproc.deployment.traces import Traces
from pytest_nixproc.machines.api import Account, Listener, Machine, Sight
from pytest_nixproc.machines.process_table import ancestors
from pytest_nixproc.managers.api import Driver, Status, Target, Unit
from pytest_nixproc.model.accounts import needed_homes
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel

ZOMBIE_SECONDS: Final = 0.5
PID_FILE_SECONDS: Final = 0.5


class Owners:
    """Tells which instance a process belongs to; the process table is read once, and only when it is needed."""

    def __init__(self, machine: Machine, target: Target, main: Mapping[int, str]) -> None:
        self.machine = machine
        self.target = target
        self.main = main
        self._parents: dict[int, int] | None = None

    def owner(self, pid: int | None) -> str | None:
        """Return the instance of a process: by main process, by ancestry, or by the tag in its environment."""
        if pid is None or pid in self.main:
            return self.main.get(pid or 0)
        return self._by_ancestry(pid) or self._by_tag(pid)

    def living_members(self, pids: set[int]) -> dict[int, str]:
        """Return which of some processes still run and are known to belong to an instance."""
        living = pids - self.machine.ended(pids)
        return {pid: name for pid in living if (name := self.owner(pid)) is not None}

    def _by_ancestry(self, pid: int) -> str | None:
        if self._parents is None:
            self._parents = self.machine.parents()
        return next((self.main[above] for above in ancestors(pid, self._parents) if above in self.main), None)

    def _by_tag(self, pid: int) -> str | None:
        if not all(self.machine.has_tag(pid, f"{name}={value}") for name, value in self.target.tags.items()):
            return None
        names = (name for name in set(self.main.values()) if self.machine.has_tag(pid, f"NIXPROC_INSTANCE={name}"))
        return next(names, None)


def observe(
    model: ProcessesModel,
    units: Mapping[str, Unit],
    driver: Driver,
    target: Target,
    outside: Mapping[str, str] | None = None,
    told: Sequence[Told] = (),
    traces: Traces | None = None,
) -> Snapshot:
    """Return a snapshot of a running system.

    ``outside`` is what instances are told to keep outside the state, ``told`` the PID files that they are told;
    ``traces`` knows which paths their programs name.
    """
    by_unit = driver.status(list(units.values()))
    statuses = {name: by_unit[unit.name] for name, unit in units.items()}
    owners = Owners(driver.machine, target, {s.pid: name for name, s in statuses.items() if s.running and s.pid})
    sights = sights_of(driver.machine, owners.main, target)
    relevant = holders(driver, by_unit, owners, sights, model)
    pid_files = read_pid_files(driver.machine, model, units, target)
    named = named_by(driver, units, pid_files)
    accounts = accounts_to_run_as(model, target)
    own_places = (os.path.dirname(target.directory), *target.state.all(), *needed_homes(model))
    mains = {name: pid for pid, name in owners.main.items() if name in accounts}
    return Snapshot(
        model=model,
        units=units,
        statuses=statuses,
        owners=relevant,
        pid_files=pid_files,
        named=named,
        members=owners.living_members(set(named.values())),
        commands=describe(driver.machine, relevant),
        accounts=accounts,
        run_as={name: found for name, pid in mains.items() if (found := driver.machine.account_of(pid))},
        sights=sights,
        changed=changed_paths(driver.machine, outside or {}, target),
        own_places=own_places,
        traces=traces.found(sights, accounts, own_places, target.directory) if traces else (),
        told_pid_files=ToldPidFiles(driver, units, owners, sights).settled(told),
        client_ports=driver.machine.facts.client_ports,
    )


def named_by(driver: Driver, units: Mapping[str, Unit], pid_files: Mapping[str, str]) -> dict[str, int]:
    """Return the processes that PID files name, by instance."""
    found = {name: driver.process_named(units[name], content.encode()) for name, content in pid_files.items()}
    return {name: pid for name, pid in found.items() if pid is not None}


class ToldPidFiles:
    """Looks at PID files that programs write for themselves."""

    def __init__(
        self, driver: Driver, units: Mapping[str, Unit], owners: Owners, sights: Iterable[tuple[str, Sight]]
    ) -> None:
        self.driver = driver
        self.units = units
        self.owners = owners
        self.seen = {sight.pid: name for name, sight in sights if not sight.is_zombie}

    def settled(self, told: Iterable[Told]) -> list[ToldPidFile]:
        """Look at those that managers do not use themselves; where some are wrong, look again until they are right.

        Programs may listen before they write their PID files.
        """
        own = [item for item in told if item.path != self.units[item.claims[0].instance].pid_file]
        files = [self._look(item) for item in own]
        wrong = any(not file.is_right for file in files)
        for _ in self.driver.machine.deadline(PID_FILE_SECONDS).pauses() if wrong else ():
            files = [self._look(item) for item in own]
            if all(file.is_right for file in files):
                break
        return files

    def _look(self, told: Told) -> ToldPidFile:
        try:
            content = self.driver.machine.read(told.path)
        except OSError:
            # Closed to us, or no file: nothing can be said about it.
            return ToldPidFile(told.path, told.claims, None, None, is_required=False)
        text = None if content is None else content.decode(errors="replace")
        owner = self._owner(told.claims[0].instance, content or b"")
        # What lies elsewhere may be a container's own.
        is_required = told.is_asked_for and self.driver.target.state.contains(told.path)
        return ToldPidFile(told.path, told.claims, text, owner, is_required)

    def _owner(self, instance: str, content: bytes) -> str | None:
        """Return the instance of the living process that a PID file names; there may be more in lines below it."""
        pid = self.driver.process_named(self.units[instance], content.partition(b"\n")[0])
        if pid is None or self.driver.machine.ended([pid]):
            return None
        return self.seen.get(pid) or self.owners.owner(pid)


def holders(
    driver: Driver,
    statuses: Mapping[str, Status],
    owners: Owners,
    sights: Sequence[tuple[str, Sight]],
    model: ProcessesModel,
) -> dict[Listener, str | None]:
    """Return who listens: what is seen of the instances' own processes; for declared ports that these lack, all others.

    Where nothing can be seen of processes, everybody is looked at who may be theirs.
    """
    forwarded = {item: owners.owner(item.pid) for item in driver.listeners(statuses)}
    hidden = {(item.protocol, item.port) for item in forwarded}
    seen = {item: owner for item, owner in heard(sights).items() if (item.protocol, item.port) not in hidden}
    owned = forwarded | seen
    known = {(item.protocol, item.port) for item in owned}
    missing = {(end.protocol, end.port) for instance in model.values() for end in instance.endpoints} - known
    for item in driver.machine.listeners(owners.main, {port for _, port in missing}) if missing or not sights else ():
        owner = owners.owner(item.pid)
        if (item.protocol, item.port) not in known and (owner is not None or (item.protocol, item.port) in missing):
            owned[item] = owner
    return owned


def heard(sights: Iterable[tuple[str, Sight]]) -> dict[Listener, str | None]:
    """Return the listening sockets of processes that are seen, each with its instance; a main process comes first."""
    found: dict[tuple[str, str, str, int], Listener] = {}
    for name, sight in sorted(sights, key=lambda entry: entry[1].pid != entry[1].main):
        for item in sight.listening:
            found.setdefault((name, item.protocol, item.host, item.port), item)
    return {item: name for (name, *_), item in found.items()}


def sights_of(machine: Machine, main: Mapping[int, str], target: Target) -> list[tuple[str, Sight]]:
    """Return what is seen of all processes, each with its instance."""
    tag = next((f"{name}={value}" for name, value in target.tags.items()), "")
    named = ((main.get(sight.main or 0, sight.instance), sight) for sight in settled(machine, list(main), tag))
    return [(name, sight) for name, sight in named if name in main.values()]


def settled(machine: Machine, main: list[int], tag: str) -> list[Sight]:
    """Look at all processes; where some have ended, look again until they are gone, or seem to stay.

    Between the end of a process and its parent's notice of it there is always a moment.
    """
    seen = machine.sights(main, tag)
    left = {sight.pid for sight in seen if sight.is_zombie}
    for _ in machine.deadline(ZOMBIE_SECONDS).pauses() if left else ():
        seen = machine.sights(main, tag)
        left &= {sight.pid for sight in seen if sight.is_zombie}
        if not left:
            break
    return [sight for sight in seen if not sight.is_zombie or sight.pid in left]


def changed_paths(machine: Machine, outside: Mapping[str, str], target: Target) -> dict[str, tuple[str, ...]]:
    """Return, by instance, those of its paths that have changed since the files were generated."""
    found: dict[str, tuple[str, ...]] = {}
    for path in machine.newer(list(outside), target.directory) if outside else ():
        found[outside[path]] = (*found.get(outside[path], ()), path)
    return found


def accounts_to_run_as(model: ProcessesModel, target: Target) -> dict[str, Account]:
    """Return, by instance, who processes are switched to."""
    known = target.accounts.users
    users = {name: target.user_of(instance.pkg) for name, instance in model.items()}
    return {name: known[user] for name, user in users.items() if user is not None and user in known}


def listeners(
    driver: Driver, statuses: Mapping[str, Status], likely: Iterable[int], wanted: Container[int] | None = None
) -> list[Listener]:
    """Return all listening sockets; a port that is forwarded to a unit is the unit's, not the forwarder's."""
    forwarded = driver.listeners(statuses)
    ports = {listener.port for listener in forwarded}
    return [*forwarded, *(item for item in driver.machine.listeners(likely, wanted) if item.port not in ports)]


def pid_file_of(unit: Unit, process: ManagedProcess, target: Target) -> str:
    """Return where an instance's PID file is, if it has one: where its manager looks for it, or the usual place."""
    return unit.pid_file or target.pid_file(process)


def read_pid_files(
    machine: Machine, model: ProcessesModel, units: Mapping[str, Unit], target: Target
) -> dict[str, str]:
    """Return the contents of those PID files that exist, by instance."""
    paths = {name: pid_file_of(units[name], instance.pkg, target) for name, instance in model.items()}
    contents = {name: machine.read(path) for name, path in paths.items()}
    return {name: content.decode(errors="replace") for name, content in contents.items() if content is not None}


def who_holds(machine: Machine, pid: int | None) -> str:
    """Say in words who holds a port; ``pid`` is None for a process that cannot be seen."""
    return f"process {pid} holds it ({machine.describe(pid)})" if pid else "a process of another user holds it"


def describe(machine: Machine, owners: Mapping[Listener, str | None]) -> dict[int, str]:
    """Return the command lines of foreign processes that hold ports of ours."""
    return {item.pid: machine.describe(item.pid) for item, owner in owners.items() if item.pid and owner is None}
