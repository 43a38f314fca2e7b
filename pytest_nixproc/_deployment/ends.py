"""The ends of main processes that nobody has asked their manager for: each is noticed once, between the verbs of tests.

An instance may have another main process by then, because its manager starts again what has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

from pytest_nixproc._deployment.context import DeploymentContext
from pytest_nixproc.checks.api import EndReport
from pytest_nixproc.errors import NixprocError, Unreachable
from pytest_nixproc.values.commands import describe_status
from pytest_nixproc.values.units import Status

RESTART_SECONDS: Final = 3.0
"""How long a manager may take to start an instance again that has ended, before it is taken for dead."""

END_SECONDS: Final = 2.0
"""How long the end of a process may take that has begun to end."""

BY_TEST: Final = "by a test"
BY_ITSELF: Final = "not asked to"


class EndObserver:
    """The observer of ends in a system that is up."""

    def __init__(self, context: DeploymentContext) -> None:
        self.context = context
        self.record = context.ends
        self.machine = context.machine

    def look(self, names: Collection[str]) -> list[EndReport]:
        """Return a report for each main process that has ended since the last look, but for those explained.

        As long as all of them run, that is one look at the machine; else the manager is asked, too. Other threads may
        start and stop instances meanwhile.
        """
        turns = dict(self.record.turns)
        replaced = self._take_replaced(names)
        known = [(name, pid) for name, pid in list(self.context.pids.items()) if name in names]
        watched = [*replaced, *((name, pid) for name, pid in known if self._is_at_rest(name))]
        gone = self._ended([pid for _, pid in watched])
        lost = [(name, pid) for name, pid in watched if pid in gone]
        unseen = [name for name in names if self._is_unseen(name)]
        if not lost and not unseen:
            return []
        self.machine.processes.sync_exits()
        hopeful = {name for name, pid in lost if (name, pid) not in self.record.explained}
        try:
            statuses = self._settled({name for name, _ in lost}.union(unseen), hopeful)
        except Unreachable:
            # Of a manager that has gone, and of all that it ran, the teardown tells.
            return []
        still = self.context.pids.items()
        ends: list[tuple[str, int | None]] = [end for end in lost if end in replaced or end in still]
        ends += [(name, None) for name in unseen if statuses[name].has_ended and self._is_unseen(name)]
        with self.record.unchanged(turns, names) as same:
            ends = [(name, pid) for name, pid in ends if name in same or (name, pid) in replaced]
        reports = [self._account_for(name, pid, statuses[name]) for name, pid in ends]
        seen = {name: status.pid for name, status in statuses.items() if status.running and status.pid}
        self.context.remember({name: pid for name, pid in seen.items() if self._is_at_rest(name)}, turns)
        return [report for report in reports if report is not None]

    def _take_replaced(self, names: Collection[str]) -> list[tuple[str, int]]:
        """Return the main processes of some instances in whose place another one was seen, each once."""
        taken = [entry for entry in self.record.replaced if entry[0] in names]
        self.record.replaced[:] = [entry for entry in self.record.replaced if entry not in taken]
        return taken

    def _ended(self, pids: Collection[int]) -> set[int]:
        """Return the processes that have ended, with those that are about to: a test may have seen that already."""
        processes = self.machine.processes
        ending = processes.ending(pids)
        return ending - processes.wait_ended(ending, self.machine.deadline(END_SECONDS)) if ending else set()

    def _is_at_rest(self, name: str) -> bool:
        """Tell whether an instance is to run, and nobody is starting or stopping it."""
        return name in self.context.running and name not in self.record.busy

    def _is_unseen(self, name: str) -> bool:
        """Tell whether an instance is to run whose main process nobody has seen yet."""
        return self._is_at_rest(name) and name not in self.context.pids and name not in self.record.over

    def _settled(self, names: Iterable[str], hopeful: Iterable[str]) -> Mapping[str, Status]:
        """Return the statuses of instances, once those that may be started again are up, if they ever will be."""
        units = {name: self.context.units[name] for name in names}
        statuses: dict[str, Status] = {}

        def are_settled() -> bool:
            try:
                found = self.context.driver.status(list(units.values()))
                statuses.update((name, found[unit.name]) for name, unit in units.items())
            except Unreachable:
                raise
            except NixprocError as error:
                # Its manager has gone as well, which is no reason to say nothing of the instance.
                statuses.update((name, Status(running=False, has_ended=True, text=error.brief)) for name in units)
            return all(statuses[name].running or statuses[name].has_ended for name in hopeful)

        self.machine.deadline(RESTART_SECONDS).until(are_settled)
        return statuses

    def _account_for(self, name: str, pid: int | None, status: Status) -> EndReport | None:
        """Record an end; return the report, unless it is explained or the instance may end."""
        context, timeline = self.context, self.context.timeline
        if pid is not None and context.pids.get(name) == pid:
            del context.pids[name]
        how = self._manner(name, pid, status)
        is_explained = pid is not None and (name, pid) in self.record.explained
        if pid is not None:
            self.record.explained.discard((name, pid))
        seconds = timeline.since("ready", name)
        timeline.add("ended", name, f"{how}, {BY_TEST if is_explained else BY_ITSELF}")
        successor = status.pid if status.running else None
        if status.running:
            timeline.add("restarted", name, f"process {successor}")
        else:
            self.record.over.add(name)
        if is_explained or context.model[name].attributes.get("may_end"):
            return None
        if not status.running:
            self.record.reported.add(name)
        return EndReport(name, how, seconds, is_back=status.running, status=status.text)

    def _manner(self, name: str, pid: int | None, status: Status) -> str:
        """Return in words how a main process has ended, as far as anybody knows."""
        number = None if status.running else status.exit_status
        if number is None and pid is not None:
            with suppress(NixprocError):
                number = self.context.driver.exit_status(self.context.units[name], pid)
        return "ended" if number is None else describe_status(number)
