"""The context in which instances are started, watched and stopped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pytest_nixproc._deployment.timeline import Timeline
from pytest_nixproc._persistence.journal import Journal
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._planning.steps import Step
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.units import Unit


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


@dataclass(frozen=True)
class DeploymentContext:
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

    @property
    def machine(self) -> Machine:
        """The machine that the system runs on."""
        return self.driver.machine

    def limit(self, verb: str, name: str) -> float:
        """Return how many seconds an instance has until it has to be ready, or until it is ended by force."""
        usual = self.settings.start_seconds if verb == "start" else self.settings.stop_seconds
        return float(self.model[name].attributes.get(f"{verb}_timeout", usual))

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

    def remember(self, pids: Mapping[str, int]) -> None:
        """Remember main processes here and, with their identities, in the journal.

        An identity distinguishes a process from a later one that reuses its pid.
        """
        new = {name: pid for name, pid in pids.items() if self.pids.get(name) != pid}
        if new:
            identities = {
                self.units[name].name: (pid, self.machine.processes.identity(pid)) for name, pid in new.items()
            }
            self.journal.write("running", pids=identities)
            self.ends.replaced.extend((name, self.pids[name]) for name in new if name in self.pids)
            self.pids.update(new)
