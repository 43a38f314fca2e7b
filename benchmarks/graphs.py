"""What waiting for dependencies costs: seconds until a graph of servers is up, beside the longest path through it.

Servers that need 0 to 300 ms depend on each other at random. Nobody can be quicker than the sum along the longest path;
what comes on top of it is told in floors: all servers of a graph started and ended at once, in the same repetition.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.deploy import FLOOR_RUNS, TUNED, Laboratory, floor
from benchmarks.results import Bar, Results, add_options
from benchmarks.servers import Timing, Work, compile_server, free_ports
from pytest_nixproc import Instance, ProcessesModel, System, create_managed_process
from pytest_nixproc._registry import Registry

LONGEST_MS: Final = 300
MOST_NEEDS: Final = 3
PATH_BAR: Final = 1.1
FLOOR_BAR: Final = 3.5


@dataclass(frozen=True)
class Graph:
    """Servers by port: how long each needs, and which it depends on."""

    delays: Mapping[int, int]
    needs: Mapping[int, Sequence[int]]

    @classmethod
    def draw(cls, ports: Sequence[int], chance: random.Random) -> Graph:
        """Draw a graph: each server depends on a few of those before it."""
        delays = {port: chance.randint(0, LONGEST_MS) for port in ports}
        needs = {
            port: chance.sample(ports[:number], min(number, chance.randint(0, MOST_NEEDS)))
            for number, port in enumerate(ports)
        }
        return cls(delays, needs)

    @property
    def longest_path(self) -> float:
        """Return the seconds that cannot be saved."""
        ends: dict[int, int] = {}
        for port, needs in self.needs.items():
            ends[port] = self.delays[port] + max((ends[need] for need in needs), default=0)
        return max(ends.values()) / 1000

    def model(self, server: str) -> ProcessesModel:
        """Return the servers as a processes model."""
        return ProcessesModel({f"server{port}": self._instance(server, port) for port in self.delays})

    def _instance(self, server: str, port: int) -> Instance:
        name, needs = f"server{port}", [f"server{need}" for need in self.needs[port]]
        args = [str(port), "--delay", str(self.delays[port])] if self.delays[port] else [str(port)]
        process = create_managed_process(name=name, foreground_process=server, args=args, dependencies=needs)
        return Instance(process, port=port)


def bare_start(laboratory: Laboratory, ports: Sequence[int]) -> float:
    """Return the seconds in which a supervisord tuned by hand has one server up."""
    return laboratory.bare_supervisord(Work(laboratory.server, ports[:1], 0)).deploy


def deployed(laboratory: Laboratory, name: str, graph: Graph) -> Timing:
    """Deploy a graph by a manager, and take it down."""
    system = System(laboratory.planner(laboratory.registry.manager(name)))
    model = graph.model(laboratory.server)
    begin = time.perf_counter()
    system.start(lambda _: model)
    up = time.perf_counter()
    system.stop()
    return Timing(up - begin, time.perf_counter() - up)


def excesses(laboratory: Laboratory, options: argparse.Namespace) -> Iterator[tuple[Graph, str, float, float, float]]:
    """Yield, for each graph and manager, the seconds of its deployment, those allowed, and the floor."""
    chance = random.Random(options.seed)  # noqa: S311 - the same graphs for the same seed are what is wanted
    ports = free_ports(options.servers)
    for _ in range(options.graphs):
        graph = Graph.draw(ports, chance)
        work = Work(laboratory.server, ports, 0)
        least = statistics.median(floor(work).total for _ in range(FLOOR_RUNS))
        for name in options.managers:
            own = bare_start(laboratory, ports) if name == TUNED else 0.0
            allowed = PATH_BAR * graph.longest_path + FLOOR_BAR * least + own
            yield graph, name, deployed(laboratory, name, graph).deploy, allowed, least


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--graphs", type=int, default=20, help="how many are drawn")
    parser.add_argument("--servers", type=int, default=50, help="of each graph")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing")
    parser.add_argument("--managers", type=lambda text: text.split(","), default=["sysvinit", TUNED])
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("graphs")
    registry = Registry()
    machine = registry.machine("host")()
    table = results.table("Graphs", "by", "longest path", "deployed", "allowed", "floor")
    worst: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="np-") as directory:
        laboratory = Laboratory(compile_server(directory), machine, registry, None)
        try:
            # As at the end of a session's collection.
            machine.lifecycle.prepare()
            for name in options.managers:
                registry.manager(name).warm_up(machine)
            for graph, name, seconds, allowed, least in excesses(laboratory, options):
                table.row(name, *(f"{value:.3f} s" for value in (graph.longest_path, seconds, allowed, least)))
                worst[name] = max(worst.get(name, 0.0), seconds / allowed)
        finally:
            machine.lifecycle.close()
    for name, ratio in worst.items():
        what = f"{name}: every graph within {PATH_BAR} longest paths and {FLOOR_BAR} floors"
        what += ", and one start of a bare supervisord" if name == TUNED else ""
        results.bars.append(Bar(what, f"{ratio:.2f} of that at worst", ratio <= 1))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
