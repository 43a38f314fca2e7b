"""What deployments cost with each manager, against that manager alone, tuned by hand, for the same servers.

For all servers: until every port answers, a look at the state of all, and until all are gone. For one of many: a
restart, and an upgrade by which it has another command, until its port answers again. Bare and ours run in turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from benchmarks.bare import BARE, Runner
from benchmarks.deploy import Laboratory
from benchmarks.results import Bar, Results, Table, add_options, at_most
from benchmarks.servers import Work, await_ports, compile_server, free_ports, model_of, refuse_left_ports
from benchmarks.sessions import able
from pytest_nixproc import Manager, ProcessesModel, System
from pytest_nixproc._registry import Registry

ACTIONS: Final = ("deploy", "status of all", "restart of one", "upgrade of one", "teardown")
HEAD: Final = ("servers", "manager", "", "alone, ms", "ours, ms", "ratio")
BARS: Final[dict[str, dict[str, float]]] = {
    "supervisord": {"deploy and teardown": 0.9},
    "systemd": {"deploy": 1.2, "teardown": 1.2},
}
COUNTS_OF_BARS: Final = (50, 100, 200)
GROWTH: Final = (100, 1000, 11.0)
"""From how many servers to how many the cost may grow by how much."""


class Deployment(Runner):
    """A deployment of ours."""

    def __init__(self, laboratory: Laboratory, manager: Manager, work: Work) -> None:
        self.work = work
        self.system = System(laboratory.planner(manager))

    def start(self) -> None:
        """Deploy the servers."""
        self.system.start(lambda _: model_of(self.work))

    def look(self) -> object:
        """Ask for the statuses of all instances."""
        return self.system.statuses()

    def restart(self, port: int) -> None:
        """Restart one instance."""
        self.system[f"server{port}"].restart()

    def replace(self, port: int, argv: Sequence[str]) -> None:
        """Upgrade to a model in which one instance has other arguments."""
        changed = model_of(replace(self.work, ports=[port], delay=int(argv[-1])))
        self.system.upgrade(lambda _: ProcessesModel({**model_of(self.work), **changed}))

    def stop(self) -> None:
        """Take the system down."""
        self.system.stop()


@dataclass
class Row:
    """What one manager takes for some servers, alone and with us, in milliseconds by action."""

    manager: str
    count: int
    alone: dict[str, list[float]] = field(default_factory=lambda: {action: [] for action in ACTIONS})
    ours: dict[str, list[float]] = field(default_factory=lambda: {action: [] for action in ACTIONS})

    def ratio(self, *actions: str) -> float:
        """Return the median of the ratios of all repetitions, for actions together."""
        return statistics.median(own / alone for own, alone in zip(*self.sums(actions), strict=True))

    def sums(self, actions: Sequence[str]) -> tuple[list[float], list[float]]:
        """Return what actions have taken together in each repetition, with us and alone."""
        of_both = ([times[action] for action in actions] for times in (self.ours, self.alone))
        ours, alone = ([sum(parts) for parts in zip(*times, strict=True)] for times in of_both)
        return ours, alone

    @property
    def total(self) -> float:
        """Return the median of our deployment and teardown."""
        return statistics.median(self.sums(("deploy", "teardown"))[0])

    def show(self, table: Table) -> None:
        """Add the actions to a table."""
        for action in ACTIONS:
            medians = (f"{statistics.median(times[action]):.1f}" for times in (self.alone, self.ours))
            table.row(str(self.count), self.manager, action, *medians, f"x {self.ratio(action):.2f}")


def times_of(runner: Runner, work: Work) -> dict[str, float]:
    """Let somebody run the servers, and return the milliseconds of each action."""
    middle = work.ports[len(work.ports) // 2]
    other = [work.server, str(middle), "--delay", "1"]
    times: dict[str, float] = {}

    def timed(action: str, act: Callable[[], object], *ports: int) -> None:
        begin = time.perf_counter()
        act()
        await_ports(ports)
        times[action] = (time.perf_counter() - begin) * 1000

    try:
        timed("deploy", runner.start, *work.ports)
        timed("status of all", runner.look)
        timed("restart of one", lambda: runner.restart(middle), middle)
        timed("upgrade of one", lambda: runner.replace(middle, other), middle)
    finally:
        timed("teardown", runner.stop)
    refuse_left_ports(work)
    return times


def measure(laboratory: Laboratory, name: str, work: Work, repetitions: int) -> Row:
    """Return what a manager takes for some servers; what the first run has to import or to begin does not count."""
    row, manager = Row(name, len(work.ports)), laboratory.registry.manager(name)
    for number in range(repetitions + 1):
        with laboratory.scratch() as directory:
            alone = times_of(BARE[name](work, directory), work)
        ours = times_of(Deployment(laboratory, manager, work), work)
        for action in ACTIONS if number else ():
            row.alone[action].append(alone[action])
            row.ours[action].append(ours[action])
    return row


def bars_of(rows: Sequence[Row]) -> Iterator[Bar]:
    """Yield what has to hold, as far as it was measured."""
    for row in rows:
        for actions, limit in BARS.get(row.manager, {}).items() if row.count in COUNTS_OF_BARS else ():
            ratio = row.ratio(*actions.split(" and "))
            yield at_most(f"{row.manager}, {row.count} servers, {actions}, to the manager alone", ratio, limit)
    fewer, more, limit = GROWTH
    for one, other in pairwise(sorted(rows, key=lambda row: (row.manager, row.count))):
        if (one.manager, one.count, other.count) == (other.manager, fewer, more):
            growth = other.total / one.total
            yield at_most(f"{one.manager}, deploy and teardown, {fewer} servers to {more}", growth, limit)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--counts", type=lambda text: [int(part) for part in text.split(",")], default=[1, 10, 50, 100])
    parser.add_argument("--managers", type=lambda text: text.split(","), default=list(BARE))
    parser.add_argument("--repetitions", type=int, default=5)
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("managers")
    results.figure("repetitions", str(options.repetitions))
    registry = Registry()
    machine = registry.machine("host")()
    table = results.table("Managers", *HEAD)
    rows = []
    with tempfile.TemporaryDirectory(prefix="np-") as directory:
        laboratory = Laboratory(compile_server(directory), machine, registry, None)
        try:
            ports = free_ports(max(options.counts))
            for count in options.counts:
                for name in able(registry, options.managers):
                    rows.append(
                        measure(laboratory, name, Work(laboratory.server, ports[:count], 0), options.repetitions)
                    )
                    rows[-1].show(table)
        finally:
            machine.lifecycle.close()
    results.bars.extend(bars_of(rows))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
