"""Snapshots of a running system, each taken in one round over the machine for all instances."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pytest_nixproc._inspection.answers import ProcessAttribution, is_at
from pytest_nixproc._inspection.file_changes import FileChanges
from pytest_nixproc.checks.api import PidFileState, Snapshot
from pytest_nixproc.checks.claims import ReferencedPidFile
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.model.accounts import needed_homes
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.machine import Account, Listener, ProcessInfo, Protocol
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

PASSING_SECONDS: Final = 0.5
LOOKS: Final = 3
"""How often a system is looked at anew in which instances end all the time."""

PID_FILE_SECONDS: Final = 0.5


def observe(
    model: ProcessesModel,
    units: Mapping[str, Unit],
    driver: Driver,
    target: Target,
    outside: Mapping[str, str] | None = None,
    told: Sequence[ReferencedPidFile] = (),
    file_changes: FileChanges | None = None,
) -> Snapshot:
    """Return a snapshot of a running system: of a moment in which no main process ended, if there is one.

    What is seen of an instance that ends meanwhile does not fit together. ``outside`` has the paths that instances
    claim outside the state, ``told`` the PID files whose paths are passed to programs; ``file_changes`` knows which
    paths these programs name.
    """
    for _ in range(LOOKS):
        snapshot = look(model, units, driver, target, outside or {}, told, file_changes)
        mains = [status.pid for status in snapshot.statuses.values() if status.running and status.pid]
        if not driver.machine.processes.ended(mains):
            break
    return snapshot


def look(
    model: ProcessesModel,
    units: Mapping[str, Unit],
    driver: Driver,
    target: Target,
    outside: Mapping[str, str],
    told: Sequence[ReferencedPidFile],
    file_changes: FileChanges | None,
) -> Snapshot:
    """Return a snapshot of a running system, one part after the other."""
    by_unit = driver.status(list(units.values()))
    statuses = {name: by_unit[unit.name] for name, unit in units.items()}
    attribution = ProcessAttribution(
        driver.machine, target, {s.pid: name for name, s in statuses.items() if s.running and s.pid}
    )
    processes = inspect_processes(driver.machine, attribution.main, target)
    relevant = holders(driver, by_unit, attribution, processes, model)
    pid_files = read_pid_files(driver.machine, model, units, target)
    pids = {name: driver.process_named(units[name], content.encode()) for name, content in pid_files.items()}
    named = {name: pid for name, pid in pids.items() if pid is not None}
    accounts = accounts_to_run_as(model, target)
    places = (os.path.dirname(target.directory), *target.state.all(), *needed_homes(model))
    own_places = with_real_paths(driver.machine, places)
    mains = {name: pid for pid, name in attribution.main.items() if name in accounts}
    return Snapshot(
        model=model,
        units=units,
        statuses=statuses,
        owners=relevant,
        pid_files=pid_files,
        named=named,
        members=attribution.living_members(set(named.values())),
        commands=describe(driver.machine, relevant),
        accounts=accounts,
        run_as={name: found for name, pid in mains.items() if (found := driver.machine.accounts.of(pid))},
        processes=processes,
        changed=changed_paths(driver.machine, outside, target, own_places),
        own_places=own_places,
        directories=real_directories(driver.machine, model),
        file_changes=file_changes.found(processes, accounts, own_places, target.directory) if file_changes else (),
        referenced_pid_files=PidFileReader(driver, units, attribution, processes).read_until_stable(told),
        client_ports=driver.machine.facts.client_ports,
    )


class PidFileReader:
    """A reader of PID files that programs write for themselves."""

    def __init__(
        self,
        driver: Driver,
        units: Mapping[str, Unit],
        attribution: ProcessAttribution,
        processes: Iterable[tuple[str, ProcessInfo]],
    ) -> None:
        self.driver = driver
        self.units = units
        self.attribution = attribution
        self.seen = {process.pid: name for name, process in processes if not process.is_zombie}

    def read_until_stable(self, told: Iterable[ReferencedPidFile]) -> list[PidFileState]:
        """Return the states of PID files that managers do not use; while some are wrong, read again for a moment.

        Programs may listen before they write their PID files.
        """
        own = [item for item in told if item.path != self.units[item.claims[0].instance].pid_file]
        files: list[PidFileState] = []

        def are_right() -> bool:
            files[:] = map(self._look, own)
            return all(file.is_right for file in files)

        self.driver.machine.deadline(PID_FILE_SECONDS).until(are_right)
        return files

    def _look(self, told: ReferencedPidFile) -> PidFileState:
        try:
            content = self.driver.machine.files.read(told.path)
        except OSError:
            # Closed to us, or no file: nothing can be said about it.
            return PidFileState(told.path, told.claims, None, None, is_required=False)
        text = None if content is None else content.decode(errors="replace")
        pid = self.driver.process_named(self.units[told.claims[0].instance], content or b"")
        owner = None
        if pid is not None and not self.driver.machine.processes.ended([pid]):
            owner = self.seen.get(pid) or self.attribution.owner(pid)
        # What lies elsewhere may be a container's own.
        is_required = told.is_asked_for and self.driver.target.state.contains(told.path)
        return PidFileState(told.path, told.claims, text, owner, is_required)


def holders(
    driver: Driver,
    statuses: Mapping[str, Status],
    attribution: ProcessAttribution,
    processes: Sequence[tuple[str, ProcessInfo]],
    model: ProcessesModel,
) -> dict[Listener, str | None]:
    """Return the listeners of instances, each with its instance, and foreign listeners on declared ports.

    The machine is asked for listeners only when the instances' own processes lack a declared port, or when nothing can
    be seen of processes.
    """
    forwarded = {item: attribution.owner(item.pid) for item in driver.listeners(statuses)}
    hidden = {(item.protocol, item.port) for item in forwarded}
    # What an earlier run has left names the instance, too.
    own = [(name, item) for name, item in processes if item.main or attribution.owner(item.pid) == name]
    seen = {
        item: owner for item, owner in instances_by_listener(own).items() if (item.protocol, item.port) not in hidden
    }
    owned = forwarded | seen
    missing = unserved(model, owned)
    known = {(item.protocol, item.port, item.host) for item in owned}
    for item in (
        driver.machine.network.listeners(attribution.main, {port for _, port in missing})
        if missing or not processes
        else ()
    ):
        owner = attribution.owner(item.pid)
        is_new = (item.protocol, item.port) not in hidden and (item.protocol, item.port, item.host) not in known
        if is_new and (owner is not None or (item.protocol, item.port) in missing):
            owned[item] = owner
    return owned


def unserved(model: ProcessesModel, owned: Mapping[Listener, str | None]) -> set[tuple[Protocol, int]]:
    """Return the declared ports on which an instance does not listen itself, as far as its sockets are seen."""
    sockets = defaultdict(list)
    for item, owner in owned.items():
        sockets[owner, item.protocol, item.port].append(item)
    return {
        (endpoint.protocol, endpoint.port)
        for name, instance in model.items()
        for endpoint in instance.endpoints
        if not any(is_at(item, [endpoint]) for item in sockets[name, endpoint.protocol, endpoint.port])
    }


def instances_by_listener(processes: Iterable[tuple[str, ProcessInfo]]) -> dict[Listener, str | None]:
    """Return the listening sockets of processes that are seen, each with its instance; a main process comes first."""
    found: dict[tuple[str, str, str, int], Listener] = {}
    for name, process in sorted(processes, key=lambda entry: entry[1].pid != entry[1].main):
        for item in process.listening:
            found.setdefault((name, item.protocol, item.host, item.port), item)
    return {item: name for (name, *_), item in found.items()}


def inspect_processes(machine: Machine, main: Mapping[int, str], target: Target) -> list[tuple[str, ProcessInfo]]:
    """Return all processes, each with its instance; look again at passing ones until they are gone or seem to stay.

    Between the end of a process and its parent's notice of it there is always a moment, and another one between the PID
    file of a daemon and the end of the process that has started it.
    """
    tag = next((f"{name}={value}" for name, value in target.tags.items()), "")
    seen = machine.processes.inspect(list(main), tag)
    left = {process.pid for process in seen if is_passing(process)}

    def are_gone() -> bool:
        nonlocal seen
        if left:
            seen = machine.processes.inspect(list(main), tag)
            left.intersection_update({process.pid for process in seen if is_passing(process)})
        return not left

    machine.deadline(PASSING_SECONDS).until(are_gone)
    stable = [process for process in seen if not is_passing(process) or process.pid in left]
    named = ((main.get(process.main or 0, process.instance), process) for process in stable)
    return [(name, process) for name, process in named if name in main.values()]


def is_passing(process: ProcessInfo) -> bool:
    """Tell whether a process may be gone in a moment: it has ended, or descends from no main process."""
    return process.is_zombie or process.main is None


def changed_paths(
    machine: Machine, outside: Mapping[str, str], target: Target, own_places: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Return the paths of each instance that have changed since the files were generated.

    Those are left out that lead into the system's own places all the same, through symbolic links.
    """
    found: dict[str, tuple[str, ...]] = {}
    changed = machine.files.modified_since(list(outside), target.directory) if outside else ()
    own = tuple(f"{place}/" for place in own_places)
    for path, real in machine.files.real_paths(changed).items() if changed else ():
        if not f"{real}/".startswith(own):
            found[outside[path]] = (*found.get(outside[path], ()), path)
    return found


def with_real_paths(machine: Machine, places: Iterable[str]) -> tuple[str, ...]:
    """Return directories also as the kernel shows them: it knows a process's files without symbolic links (proc(5))."""
    real = machine.files.real_paths(places)
    return tuple(dict.fromkeys((*real, *real.values())))


def real_directories(machine: Machine, model: ProcessesModel) -> dict[str, str]:
    """Return the working directories that a model gives, as the kernel shows them, by instance."""
    given = {name: instance.pkg.directory for name, instance in model.items()}
    told = {name: directory for name, directory in given.items() if directory}
    real = machine.files.real_paths(told.values()) if told else {}
    return {name: real[directory] for name, directory in told.items()}


def accounts_to_run_as(model: ProcessesModel, target: Target) -> dict[str, Account]:
    """Return the accounts that processes are switched to, by instance."""
    known = target.accounts.users
    users = {name: instance.pkg.user_at(target) for name, instance in model.items()}
    return {name: known[user] for name, user in users.items() if user is not None and user in known}


def pid_file_of(unit: Unit, process: ManagedProcess, target: Target) -> str:
    """Return the path of an instance's PID file, if it has one: the one that its manager uses, or the usual one."""
    return unit.pid_file or process.pid_file_at(target)


def read_pid_files(
    machine: Machine, model: ProcessesModel, units: Mapping[str, Unit], target: Target
) -> dict[str, str]:
    """Return the contents of the PID files that exist, by instance."""
    paths = {name: pid_file_of(units[name], instance.pkg, target) for name, instance in model.items()}
    contents = {name: machine.files.read(path) for name, path in paths.items()}
    return {name: content.decode(errors="replace") for name, content in contents.items() if content is not None}


def describe(machine: Machine, owners: Mapping[Listener, str | None]) -> dict[int, str]:
    """Return the command lines of foreign processes that hold ports of ours."""
    return {
        item.pid: machine.processes.describe(item.pid) for item, owner in owners.items() if item.pid and owner is None
    }
