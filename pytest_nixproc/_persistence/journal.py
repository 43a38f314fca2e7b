"""The journal of a deployment: each step is on disk before it is taken, so that any process can undo it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, field, replace
from typing import Any

from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.trust import open_own
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit
from pytest_nixproc.values.value import Value


class Journal:
    """An append-only file of one JSON object a line; each reaches the kernel before the step that it announces."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)

    def write(self, event: str, **facts: Any) -> None:
        """Append one event."""
        line = json.dumps({"event": event, **facts}).encode() + b"\n"
        written = 0
        try:
            # What has been written in part is refused by the next call, which says why.
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            # A torn line would hide what is written behind it when there is room again.
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(error.errno, error.strerror, self.path) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Record(Value):
    """The record of a deployment in its journal: enough for a new driver to stop the rest of the deployment."""

    manager: str
    machine: str
    target: Target
    opened: bool
    """Whether the opening of the manager was begun."""

    started: tuple[tuple[Unit, ...], ...]
    """Units by the order of their start; those that were stopped are left out."""

    pids: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Main processes by unit, each with the time of its start."""

    stop_seconds: Mapping[str, float] = field(default_factory=dict)
    """How long units may take to stop; the target says it of those that are not here."""

    assigned: Mapping[str, Any] = field(default_factory=dict)
    """Ids and ports that were assigned."""

    def limit_of(self, unit: Unit) -> float:
        """Return how many seconds a unit may take to stop."""
        return self.stop_seconds.get(unit.name, self.target.stop_seconds)


def begin(journal: Journal, manager: str, machine: str, target: Target) -> None:
    """Write the first event: who runs the deployment, and where."""
    facts: dict[str, Any] = {"state": asdict(target.state), "directory": target.directory, "identity": target.identity}
    facts |= {"owner": target.owner, "tags": dict(target.tags), "stop_seconds": target.stop_seconds}
    facts["force_disable_user_change"] = target.force_disable_user_change
    journal.write("begin", manager=manager, machine=machine, **facts)


def begin_machine(path: str, machine: str) -> Journal:
    """Begin the journal of a throwaway machine: there is nothing to undo one by one, it ends as a whole."""
    journal = Journal(path)
    journal.write("machine", machine=machine, directory=os.path.dirname(path))
    return journal


def first_event(path: str) -> Mapping[str, Any]:
    """Return the first event of a journal; an empty event for a file that does not begin like a journal."""
    try:
        event = next(events(path), None)
    except (OSError, ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def place_of(event: Mapping[str, Any]) -> str:
    """Return the directory of the deployment whose journal begins with an event; empty if its paths disagree."""
    match event:
        case {"event": "machine", "machine": str(), "directory": str(directory)}:
            return directory
        case {"event": "begin", "manager": str(), "machine": str(), "directory": str(directory), "state": state}:
            own = DeploymentDirectory(os.path.dirname(directory))
            return own.root if (directory, state) == (own.profile, asdict(own.state)) else ""
    return ""


def machine_of(path: str) -> str | None:
    """Return the kind of machine that a journal is about; None when it says nothing yet."""
    return next((str(event["machine"]) for event in events(path) if "machine" in event), None)


def events(path: str) -> Iterator[Mapping[str, Any]]:
    """Yield the events of a journal; a line that is none, as a torn last one, ends it.

    Raises ``OSError`` for a journal that is not ours.
    """
    with open(path, "rb", opener=open_own) as file:
        for line in file:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not isinstance(event, dict):
                return
            yield event


def recall(path: str) -> Record | None:
    """Return the record of a deployment from its journal; None when that is still empty.

    Raises :class:`~pytest_nixproc.errors.NixprocError` for a journal whose events are not as we write them.
    """
    try:
        return record_of(events(path))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        brief = f"the journal {path} is damaged: {type(error).__name__}: {error}"
        raise NixprocError(brief, remedy="its processes are found by their tag all the same: nixproc reap") from error


def record_of(told: Iterable[Mapping[str, Any]]) -> Record | None:
    """Return the record that events make; None without any."""
    record = None
    for event in told:
        match event["event"]:
            case "begin":
                record = beginning(event)
            case "open" if record:
                record = replace(record, opened=True)
            case "assigned" if record:
                record = replace(record, assigned=event["facts"])
            case "running" if record:
                pids = {name: (pid, started) for name, (pid, started) in event["pids"].items()}
                record = replace(record, pids={**record.pids, **pids})
            case "start" if record:
                record = with_started(record, event)
            case "stopped" if record:
                left = (tuple(unit for unit in step if unit.name not in event["units"]) for step in record.started)
                record = replace(record, started=tuple(step for step in left if step))
    return record


def beginning(event: Mapping[str, Any]) -> Record:
    """Return the record of a deployment that has only begun."""
    target = Target(
        state=StateDirs(**event["state"]),
        directory=event["directory"],
        identity=event["identity"],
        # Earlier versions have not written it.
        owner=event.get("owner", ""),
        tags=event["tags"],
        stop_seconds=event["stop_seconds"],
        force_disable_user_change=event["force_disable_user_change"],
    )
    return Record(event["manager"], event["machine"], target, opened=False, started=())


def with_started(record: Record, event: Mapping[str, Any]) -> Record:
    """Return a record with the units of a start; earlier versions have not written how those are stopped."""
    signals = event.get("stop_signals", {})
    units = tuple(Unit(**facts, files=(), stop_signal=signals.get(facts["name"], "TERM")) for facts in event["units"])
    seconds = {**record.stop_seconds, **event.get("stop_seconds", {})}
    return replace(record, started=(*record.started, units), stop_seconds=seconds)


def start_facts(stop_seconds: Mapping[Unit, float]) -> dict[str, Any]:
    """Return the facts about units that are going to be started, and how each is stopped: how long, by which signal.

    That stands beside the facts of the units: earlier versions would refuse a fact of a unit that they do not know.
    """
    seconds = {unit.name: seconds for unit, seconds in stop_seconds.items()}
    signals = {unit.name: unit.stop_signal for unit in stop_seconds if unit.stop_signal != "TERM"}
    return {"units": [facts_of(unit) for unit in stop_seconds], "stop_seconds": seconds, "stop_signals": signals}


def facts_of(unit: Unit) -> dict[str, Any]:
    """Return the facts about a unit that a driver needs once the unit's files are in place."""
    return {"name": unit.name, "mode": unit.mode, "log_file": unit.log_file, "pid_file": unit.pid_file}
