"""What people feel: a whole session of pytest with one server, many systems of one server, and what waits for the next.

The floor of a session is one whose fixture starts the same server with `Popen`, waits for its port, and ends it. The
sessions run in turn, the floor before the others in each repetition; ratios are those of each repetition.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import trace
from benchmarks.deploy import FLOOR, Laboratory
from benchmarks.plugin_overhead import environment, session
from benchmarks.results import Results, add_options, at_most
from benchmarks.servers import Work, compile_server, free_ports
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.process_table import children_of

ROOT: Final = Path(__file__).resolve().parents[1]
MANAGERS: Final = ("sysvinit", "supervisord", "systemd", "docker")
SESSION_BARS: Final = {"sysvinit": 1.4, "supervisord": 1.7}
WARM_BAR: Final = 1.5
"""How much longer a system in a session may take than in a process that has nothing else to do."""

MEMORY_BAR: Final = 30.0
WARM_RUNS: Final = 20

MODEL: Final = """
from pytest_nixproc import Instance, create_managed_process

SERVER = {server!r}


def processes(free_port):
    port = free_port("server")
    pkg = create_managed_process(name="server", foreground_process=SERVER, args=[port])
    return {{"server": Instance(pkg, port=port)}}
"""

OURS: Final = """
import socket

import pytest


@pytest.mark.parametrize("number", range({count}))
def test_it(nixproc_system, number):
    socket.create_connection(("127.0.0.1", nixproc_system["server"].port)).close()
"""

BARE: Final = """
import socket
import subprocess
import time

import pytest

SERVER = {server!r}


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([SERVER, str(port)])
    while not accepts(port):
        time.sleep(0.0005)
    yield port
    process.terminate()
    process.wait()


def test_it(port):
    socket.create_connection(("127.0.0.1", port)).close()
"""


@dataclass
class Runs:
    """All runs of one kind of session."""

    seconds: list[float] = field(default_factory=list)
    to_floor: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Return the cells of a table: milliseconds, and ratios to the floor."""
        ratios = f"x {statistics.median(self.to_floor):.2f} ({min(self.to_floor):.2f}..{max(self.to_floor):.2f})"
        return [f"{statistics.median(self.seconds) * 1000:.0f}", ratios]


class Project:
    """A project with a bare test, with one that has a system, and with one that has a system for each of many tests."""

    def __init__(self, directory: str, server: str, many: int) -> None:
        self.directory = directory
        files = {
            "processes.py": MODEL.format(server=server),
            "test_bare.py": BARE.format(server=server),
            "test_one.py": OURS.format(count=1),
            "test_many.py": OURS.format(count=many),
            "pytest.ini": "[pytest]\nnixproc_model = processes.py\n",
        }
        for name, text in files.items():
            Path(directory, name).write_text(text)

    def run(self, *words: str, loaded: bool = True) -> float:
        """Run a session with or without our plugin; return its seconds."""
        argv, variables = [sys.executable, *session(loaded=loaded), *words], environment(self.directory)
        begin = time.perf_counter()
        subprocess.run(argv, cwd=self.directory, env=variables, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    def traced(self, *words: str, loaded: bool = True) -> dict[str, float]:
        """Run a session, and return the milliseconds of its phases."""
        argv = [sys.executable, *session(loaded=loaded), "-p", "benchmarks.trace", *words]
        path = Path(self.directory, "trace.json")
        begin = time.monotonic()
        variables = {
            **environment(self.directory),
            trace.BEGIN: repr(begin),
            trace.FILE: str(path),
            "PYTHONPATH": str(ROOT),
        }
        subprocess.run(argv, cwd=self.directory, env=variables, check=True, stdout=subprocess.DEVNULL)
        end = time.monotonic()
        facts = json.loads(path.read_text())
        phases = {**facts["seconds"], trace.EXIT: end - facts["end"]}
        return {name: seconds * 1000 for name, seconds in phases.items()}

    def bare(self) -> float:
        """Run the floor."""
        return self.run("test_bare.py", loaded=False)

    def one(self, manager: str) -> float:
        """Run one test with one system."""
        return self.run(f"--nixproc-manager={manager}", "test_one.py")

    def many(self, manager: str) -> float:
        """Run many tests, each with a system of its own."""
        return self.run(f"--nixproc-manager={manager}", "--nixproc-scope=function", "test_many.py")


def whole_sessions(project: Project, managers: Sequence[str], repetitions: int) -> dict[str, Runs]:
    """Measure sessions with one server."""
    runs = {name: Runs() for name in (FLOOR, *managers)}
    for number in range(repetitions + 1):
        floor = project.bare()
        latest = {FLOOR: floor} | {name: project.one(name) for name in managers}
        for name, seconds in latest.items() if number else ():
            runs[name].seconds.append(seconds)
            runs[name].to_floor.append(seconds / floor)
    return runs


def trace_sessions(project: Project, managers: Sequence[str], repetitions: int, results: Results) -> None:
    """Add where the milliseconds of a session go, those of the floor first; each is the median of its own."""
    kinds = {FLOOR: ("test_bare.py",)} | {name: (f"--nixproc-manager={name}", "test_one.py") for name in managers}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for number in range(repetitions + 1):
        for name, words in kinds.items():
            phases = project.traced(*words, loaded=name != FLOOR)
            runs[name] += [phases] if number else []
    table = results.table("Where the milliseconds of a session go", "phase", *kinds)
    for phase in dict.fromkeys(phase for found in runs.values() for phases in found for phase in phases):
        medians = (statistics.median(phases.get(phase, 0) for phases in found) for found in runs.values())
        table.row(phase, *(f"{median:.1f}" for median in medians))
    totals = (statistics.median(sum(phases.values()) for phases in found) for found in runs.values())
    table.row("all", *(f"{total:.1f}" for total in totals))


def warm_seconds(laboratory: Laboratory, manager: str) -> float:
    """Return the median seconds of a deployment of one server and its teardown, where both have been done before."""
    deploy, port = laboratory.contender(manager), free_ports(1)
    return statistics.median([deploy(Work(laboratory.server, port, 0)).total for _ in range(WARM_RUNS)][1:])


def waiting_megabytes(laboratory: Laboratory) -> float:
    """Return what the guardian and its templates have of the memory (PSS, proc(5)) when nothing is deployed."""
    guardian = laboratory.machine.lifecycle.guard("/nothing", ["/bin/true"]) or 0
    laboratory.machine.lifecycle.unguard("/nothing")
    return sum(map(megabytes, (guardian, *children_of(guardian))))


def megabytes(pid: int) -> float:
    """Return the proportional set size of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def able(registry: Registry, names: Iterable[str]) -> Iterator[str]:
    """Yield the managers that can run here."""
    kind = registry.machine("host")
    for name in names:
        if reason := registry.manager(name).unavailable_reason(kind):
            print(f"- {name} cannot run here: {reason}")
        else:
            yield name


def measure(laboratory: Laboratory, options: argparse.Namespace, results: Results) -> None:
    """Measure everything, and add it to the results."""
    managers = list(able(laboratory.registry, options.managers))
    with tempfile.TemporaryDirectory(prefix="np-") as directory:
        project = Project(directory, laboratory.server, options.many)
        table = results.table("A session of one test with one server", "by", "ms", "to the floor")
        for name, runs in whole_sessions(project, managers, options.repetitions).items():
            table.row(name, *runs.cells())
            if name in SESSION_BARS:
                ratio = statistics.median(runs.to_floor)
                results.bars.append(at_most(f"{name}, a whole session, to the floor", ratio, SESSION_BARS[name]))
        if options.trace:
            trace_sessions(project, managers, options.repetitions, results)
            return
        head = ("by", "ms for each system", "systems a second", "ms of a warm deploy + teardown", "ratio")
        table = results.table(f"A session of {options.many} tests, each with a system of one server", *head)
        for name in managers:
            each = (project.many(name) - project.one(name)) / (options.many - 1)
            warm = warm_seconds(laboratory, name)
            table.row(name, f"{each * 1000:.1f}", f"{1 / each:.1f}", f"{warm * 1000:.1f}", f"x {each / warm:.2f}")
            results.bars.append(at_most(f"{name}, a system in a session, to a warm one", each / warm, WARM_BAR))
    if sys.platform == "linux":
        waiting = waiting_megabytes(laboratory)
        results.figure("guardian and templates", f"{waiting:.1f} MB (PSS)")
        results.bars.append(at_most("guardian and templates together", waiting, MEMORY_BAR, " MB"))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=9, help="sessions of each kind")
    parser.add_argument("--many", type=int, default=100, help="tests with a system of their own")
    parser.add_argument("--managers", type=lambda text: text.split(","), default=MANAGERS, metavar="NAME,NAME")
    parser.add_argument("--trace", action="store_true", help="show where the time of a session with one server goes")
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("sessions")
    results.figure("sessions of each kind", str(options.repetitions))
    registry = Registry()
    with tempfile.TemporaryDirectory(prefix="np-") as directory, registry.machine("host")() as machine:
        measure(Laboratory(compile_server(directory), machine, registry, None), options, results)
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
