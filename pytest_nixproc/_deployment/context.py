"""The context in which instances are started, watched and stopped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import Protocol

from pytest_nixproc._deployment.timeline import Timeline
from pytest_nixproc._persistence.journal import Journal
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._planning.steps import Step
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.units import Unit
from pytest_nixproc.values.value import Value


class Subject(Protocol):
    """A running instance, as conditions see it; functions of users get it, too."""

    @property
    def log(self) -> str:
        """The log of the instance."""


@dataclass
class EndRecord:
    """What is known about the ends of main processes; changed in place, even by several threads."""

    replaced: list[tuple[str, int]] = field(default_factory=list)
    """Main processes in whose place another one was seen, with their instances."""

    explained: set[tuple[str, int]] = field(default_factory=set)
    """Main processes whose ends are no news: a test has ended them, or another finding is about them."""

    busy: set[str] = field(default_factory=set)
    """Instances that are being started or stopped, maybe by another thread: who does that sees how they end."""

    over: set[str] = field(default_factory=set)
    """Instances of which it is known that they do not run, until they are started again."""

    reported: set[str] = field(default_factory=set)
    """Those among them whose end was reported."""

    turns: dict[str, int] = field(default_factory=dict)
    """How often somebody has begun or finished to start or stop an instance: what was seen before holds no more."""

    _changing: Lock = field(default_factory=Lock)
    _locks: dict[str, RLock] = field(default_factory=dict)
    """Held by whoever starts, stops or kills an instance: one thread after another."""

    @contextmanager
    def exclusively(self, names: Iterable[str]) -> Iterator[None]:
        """Let other threads neither start nor stop some instances for the time of a ``with`` block."""
        with ExitStack() as stack:
            for name in sorted(names):
                stack.enter_context(self._locks.setdefault(name, RLock()))
            yield

    @contextmanager
    def being_changed(self, names: Collection[str]) -> Iterator[None]:
        """Keep others from starting and stopping instances, and from looking for their ends, while this is done."""
        with self.exclusively(names):
            self._turn(names)
            self.busy.update(names)
            try:
                yield
            finally:
                self.busy.difference_update(names)
                self._turn(names)

    def _turn(self, names: Iterable[str]) -> None:
        with self._changing:
            for name in names:
                self.turns[name] = self.turns.get(name, 0) + 1

    @contextmanager
    def unchanged(self, turns: Mapping[str, int], names: Iterable[str]) -> Iterator[list[str]]:
        """Yield those of some instances that nobody has begun to start or stop since ``turns``, nor begins to now."""
        with self._changing:
            yield [name for name in names if name not in self.busy and self.turns.get(name) == turns.get(name)]


class DeploymentContext(Value):
    """A system that is being started, used or taken down: its parts, its journal and its timeline."""

    model: ProcessesModel
    units: Mapping[str, Unit]
    driver: Driver
    journal: Journal
    timeline: Timeline
    settings: Settings
    manager: str
    """The manager's name."""

    running: dict[str, None] = field(default_factory=dict)
    """Instances that were started and not stopped again, in that order; changed in place, even by several threads."""

    pids: dict[str, int] = field(default_factory=dict)
    """Main processes as last seen, by instance."""

    ends: EndRecord = field(default_factory=EndRecord)
    """What is known about the ends of main processes."""

    logged: dict[str, int] = field(default_factory=dict)
    """How much each instance had logged when it was last asked to stop."""

    owner: ProcessIdentity = field(default_factory=ProcessIdentity.current)
    """The process that has deployed the system."""

    @property
    def machine(self) -> Machine:
        """The machine that the system runs on."""
        return self.driver.machine

    @property
    def is_ours(self) -> bool:
        """Whether this process has deployed the system, and is no child that was forked from it."""
        return self.owner == ProcessIdentity.current()

    def refuse_forked(self) -> None:
        """Raise in a forked child, which is not to start or stop what its parent has deployed."""
        if not self.is_ours:
            brief = f"a forked child cannot start or stop instances of its parent, process {self.owner.pid}"
            remedy = "do that in the test itself; a child can look at the system, and should end by os._exit()"
            raise DeploymentError(brief, remedy=remedy)

    def limit(self, verb: str, name: str) -> float:
        """Return how many seconds an instance has until it has to be ready, or until it is ended by force."""
        usual = self.settings.start_seconds if verb == "start" else self.settings.stop_seconds
        return float(self.model[name].attributes.get(f"{verb}_timeout", usual))

    def is_up(self, name: str) -> bool:
        """Tell whether an instance runs, as far as is known: it was started, and nobody has seen it end."""
        return name in self.running and name not in self.ends.over

    @property
    def longest_stop(self) -> float:
        """How many seconds the stop of the whole system may take, level after level."""
        return sum(max(self.limit("stop", name) for name in level) for level in self.model.levels)

    def by_limit(self, steps: Iterable[Step]) -> Iterator[tuple[float, list[Step]]]:
        """Yield steps that can be taken together, with the seconds that each of them has."""
        lots: dict[float, list[Step]] = {}
        for step in steps:
            lots.setdefault(self.limit(step.verb, step.name), []).append(step)
        yield from lots.items()

    def remember(self, pids: Mapping[str, int], since: Mapping[str, int] | None = None) -> None:
        """Remember main processes here and, with their identities, in the journal.

        An identity distinguishes a process from a later one that reuses its pid. ``since`` are the turns of the record
        of ends before the processes were looked for: what was seen of an instance that somebody starts or stops
        meanwhile is forgotten. So is everything in a forked child, which has no say.
        """
        if not self.is_ours:
            return
        with self.ends.unchanged(self.ends.turns if since is None else since, pids) as names:
            new = {name: pids[name] for name in names if self.pids.get(name) != pids[name]}
            self.ends.replaced.extend((name, self.pids[name]) for name in new if name in self.pids)
            self.pids.update(new)
        if new:
            identify = self.machine.processes.identity
            self.journal.write(
                "running", pids={self.units[name].name: (pid, identify(pid)) for name, pid in new.items()}
            )
