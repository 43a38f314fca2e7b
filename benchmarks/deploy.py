"""What a deployment costs: seconds from nothing to all ports answering, and back, as ratios to a bare parallel spawn.

Every repetition runs the floor three times; its median divides what the repetition's managers need. Absolute seconds
belong to one machine in one hour, ratios of one repetition can be compared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from benchmarks.bare import Processes, Supervisord
from benchmarks.results import Bar, Results, Table, add_options, at_most
from benchmarks.servers import Timing, Work, compile_server, free_ports, model_of, refuse_left_ports
from pytest_nixproc import System
from pytest_nixproc._planning.planner import LoadModel, Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.sources.api import read_model

EXAMPLE: Final = Path(__file__).resolve().parents[1] / "examples" / "webapps" / "processes_advanced.py"

HEAD: Final = ("delay", "servers", "by", "seconds deploy + teardown", "to the floor", "to the bare one")
FLOOR_RUNS: Final = 3

FLOOR: Final = "floor"
BARE: Final = "bare supervisord"
TUNED: Final = "supervisord"

SMALLEST_COUNT_OF_BARS: Final = 50
FLOOR_BARS: Final = {"sysvinit": 6.0}
BARE_BAR: Final = 1.2
SLOW_BAR: Final = 2.0
GROWTH_BAR: Final = 1.125
"""How much faster than the number of servers the cost may grow (4.5 times from 50 to 200 servers)."""

STEP_SECONDS: Final = 0.8
"""A run this far above the median has waited for a timer that counts whole seconds."""

ORIGINAL_SECONDS: Final = {"deploy": 0.76, "undeploy": 8.7}
EXAMPLE_PORTS: Final = 9
EXAMPLE_BARS: Final = {"deploy": 1.5, "undeploy": 15.0}


Contender = Callable[[Work], Timing]


@dataclass
class Row:
    """All repetitions of one contender with one number of servers."""

    delay: int
    count: int
    contender: str
    timings: list[Timing] = field(default_factory=list)
    to_floor: list[float] = field(default_factory=list)
    to_bare: list[float] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Return the median of the seconds."""
        return statistics.median(timing.total for timing in self.timings)

    @property
    def worst_step(self) -> float:
        """Return how far the slowest deployment or teardown lies above the median."""
        parts = [[timing.deploy for timing in self.timings], [timing.teardown for timing in self.timings]]
        return max(max(part) - statistics.median(part) for part in parts)

    def cells(self) -> list[str]:
        """Return the row of the table."""
        deploy = statistics.median(timing.deploy for timing in self.timings)
        teardown = statistics.median(timing.teardown for timing in self.timings)
        ratio = f"x {statistics.median(self.to_floor):.2f} ({min(self.to_floor):.2f}..{max(self.to_floor):.2f})"
        bare = f"x {statistics.median(self.to_bare):.2f}" if self.to_bare else ""
        seconds = f"{deploy:.3f} + {teardown:.3f}"
        return [f"{self.delay} ms", str(self.count), self.contender, seconds, ratio, bare]


class Laboratory:
    """What all measurements share: the compiled server, one machine as in a pytest session, the managers."""

    def __init__(self, server: str, machine: Machine, registry: Registry, state_root: str | None) -> None:
        self.server = server
        self.machine = machine
        self.registry = registry
        self.state_root = state_root

    def planner(self, manager: Manager, **params: int) -> Planner:
        """Return a planner with all the checks."""
        settings = Settings(state_root=self.state_root, params=params)
        return Planner(manager, self.machine, self.registry.rules, settings)

    def deployed(self, manager: Manager, load: LoadModel, **params: int) -> Timing:
        """Deploy and take down a model by ``manager``."""
        system = System(self.planner(manager, **params))
        begin = time.perf_counter()
        system.start(load)
        up = time.perf_counter()
        system.stop()
        return Timing(up - begin, time.perf_counter() - up)

    def contender(self, name: str) -> Contender:
        """Return the deployment of servers by the manager of this name."""
        manager = self.registry.manager(name)
        return lambda work: self.deployed(manager, lambda _: model_of(work))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a directory on the same file system as the deployments."""
        if self.state_root:
            os.makedirs(self.state_root, 0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="np-", dir=self.state_root) as directory:
            yield Path(directory)

    def bare_supervisord(self, work: Work) -> Timing:
        """Run the servers below a supervisord that is tuned by hand."""
        with self.scratch() as directory:
            return Supervisord(work, directory).timing()


def floor(work: Work) -> Timing:
    """Start all servers at once, and end them at once: nothing can be done with less."""
    return Processes(work, Path(os.devnull)).timing()


def repeat(contenders: dict[str, Contender], work: Work, repetitions: int) -> Iterator[Row]:
    """Run all contenders in turn, the floor before them in each repetition, and return their rows."""
    rows = {name: Row(work.delay, len(work.ports), name) for name in (FLOOR, *contenders)}
    for _ in range(repetitions):
        runs = sorted((floor(work) for _ in range(FLOOR_RUNS)), key=lambda timing: timing.total)
        latest = {FLOOR: runs[FLOOR_RUNS // 2]} | {name: run(work) for name, run in contenders.items()}
        refuse_left_ports(work)
        for name, timing in latest.items():
            rows[name].timings.append(timing)
            rows[name].to_floor.append(timing.total / latest[FLOOR].total)
        if BARE in latest and TUNED in latest:
            rows[TUNED].to_bare.append(latest[TUNED].total / latest[BARE].total)
    yield from rows.values()


def measure(laboratory: Laboratory, options: argparse.Namespace, table: Table) -> list[Row]:
    """Return the rows of all numbers of servers, without delay and with it; each is in the table as soon as it can."""
    contenders: dict[str, Contender] = {name: laboratory.contender(name) for name in options.managers}
    if TUNED in contenders:
        contenders = {BARE: laboratory.bare_supervisord} | contenders
    ports = free_ports(max(options.counts))
    rows = []
    for delay in dict.fromkeys((0, options.delay)):
        for count in options.counts:
            work = Work(laboratory.server, ports[:count], delay)
            for row in repeat(contenders, work, options.repetitions):
                rows.append(row)
                table.row(*row.cells())
    return rows


def warm_up(laboratory: Laboratory, managers: Iterable[str]) -> dict[str, float]:
    """Deploy one server for the first time in this process; return the seconds, which hold imports and the guardian."""
    work = Work(laboratory.server, free_ports(1), 0)
    return {name: laboratory.contender(name)(work).total for name in managers}


def example(laboratory: Laboratory, repetitions: int) -> list[Timing]:
    """Deploy the example of eight processes, whose times on the original are known; nothing where nginx is absent."""
    if not EXAMPLE.exists() or not shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        return []
    manager = laboratory.registry.manager(TUNED)
    sources = laboratory.registry.sources
    load: LoadModel = lambda context: read_model(str(EXAMPLE), context, sources)  # noqa: E731
    params = {"base_port": (first := free_ports(EXAMPLE_PORTS)[0]), "proxy_port": first + EXAMPLE_PORTS - 2}
    return [laboratory.deployed(manager, load, **params) for _ in range(repetitions)]


def bars_of(rows: Sequence[Row], timings: Sequence[Timing]) -> Iterator[Bar]:
    """Yield everything that has to hold, as far as it was measured."""
    for row in rows:
        if row.count >= SMALLEST_COUNT_OF_BARS and row.contender not in (FLOOR, BARE):
            yield from bars_of_row(row)
    yield from growth_bars(rows)
    yield from example_bars(timings)


def bars_of_row(row: Row) -> Iterator[Bar]:
    """Yield the bars of one manager with one number of servers."""
    ratio = statistics.median(row.to_floor)
    if row.delay:
        yield at_most(f"{row.contender}, {row.count} servers of {row.delay} ms, to the floor", ratio, SLOW_BAR)
    elif row.contender in FLOOR_BARS:
        yield at_most(f"{row.contender}, {row.count} servers, to the floor", ratio, FLOOR_BARS[row.contender])
    elif row.to_bare:
        yield at_most(f"{row.contender}, {row.count} servers, to a bare one", statistics.median(row.to_bare), BARE_BAR)
    if row.contender == TUNED:
        what = f"{row.contender}, {row.count} servers of {row.delay} ms, no run {STEP_SECONDS} s above the median"
        yield Bar(what, f"{row.worst_step:.2f} s", row.worst_step < STEP_SECONDS)


def growth_bars(rows: Sequence[Row]) -> Iterator[Bar]:
    """Yield, for each manager, that its cost grows no faster than the number of servers."""
    for name in dict.fromkeys(row.contender for row in rows if row.contender not in (FLOOR, BARE)):
        own = [row for row in rows if row.contender == name and not row.delay and row.count >= SMALLEST_COUNT_OF_BARS]
        for fewer, more in pairwise(own):
            allowed = GROWTH_BAR * more.count / fewer.count
            yield at_most(
                f"{name}, growth from {fewer.count} to {more.count} servers", more.total / fewer.total, allowed
            )


def example_bars(timings: Sequence[Timing]) -> Iterator[Bar]:
    """Yield that the example of eight processes is as much faster than the original's as it has to be."""
    if not timings:
        return
    seconds = {
        "deploy": statistics.median(timing.deploy for timing in timings),
        "undeploy": statistics.median(timing.teardown for timing in timings),
    }
    for part, original in ORIGINAL_SECONDS.items():
        what = (
            f"example of 8 processes on {TUNED}, {part}: at least {EXAMPLE_BARS[part]:g} times as fast as the original"
        )
        faster = original / seconds[part]
        yield Bar(what, f"{seconds[part]:.3f} s to {original} s: {faster:.1f} times", faster >= EXAMPLE_BARS[part])


def numbers(text: str) -> list[int]:
    """Read a list of numbers, smallest first."""
    return sorted(int(part) for part in text.split(","))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--counts", type=numbers, default=[1, 10, 50, 100, 200], metavar="N,N", help="numbers of servers"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="how often everything is repeated")
    parser.add_argument(
        "--managers", type=lambda text: text.split(","), default=["sysvinit", TUNED], metavar="NAME,NAME"
    )
    parser.add_argument("--delay", type=int, default=200, metavar="MS", help="of the slow servers; 0: leave them out")
    parser.add_argument(
        "--state-root", metavar="DIR", help="where deployments keep their files: a disk, or /dev/shm/np"
    )
    add_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and tell whether everything holds."""
    options = parse(argv)
    results = Results("deploy")
    results.figure("repetitions", str(options.repetitions))
    registry = Registry()
    machine = registry.machine("host")()
    with tempfile.TemporaryDirectory(prefix="np-") as directory:
        laboratory = Laboratory(compile_server(directory), machine, registry, options.state_root)
        try:
            for name, seconds in warm_up(laboratory, options.managers).items():
                results.figure(f"first deployment of one server in this process, {name}", f"{seconds:.3f} s")
            rows = measure(laboratory, options, results.table("Servers", *HEAD))
            timings = example(laboratory, options.repetitions) if TUNED in options.managers else []
        finally:
            machine.lifecycle.close()
    results.bars.extend(bars_of(rows, timings))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
