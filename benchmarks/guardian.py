"""What the guardian costs: deployments through it, against the same deployments on a machine without one.

The machine without a guardian starts processes by itself, in this process: nothing would be left to take anything down,
were this process killed. Both are measured in turn; the bar is the median of the ratios, pair by pair.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks.deploy import Laboratory
from benchmarks.results import Results, add_options, at_most
from benchmarks.servers import Work, compile_server, free_ports
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.host.guardian import HostClock, HostLifecycle, OwnGuardian
from pytest_nixproc.machines.host.processes import HostProcesses
from pytest_nixproc.machines.subreaper import become_subreaper
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.values.commands import Spawn

ALLOWED_RATIO: Final = 1.05
ALLOWED_MEGABYTES: Final = 20.0


class UnguardedProcesses(HostProcesses):
    """Processes that this one has started itself."""

    def __init__(self, guardian: OwnGuardian) -> None:
        super().__init__(guardian)
        self.statuses: dict[int, int] = {}
        become_subreaper()

    def spawn(self, command: Spawn) -> int:
        """Start a process, as the guardian does."""
        output = command.output or os.devnull
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        ignored = [signal.SIGPIPE, signal.SIGXFSZ]
        environment = dict(command.environment)
        return os.posix_spawn(
            command.argv[0], command.argv, environment, file_actions=actions, setsid=True, setsigdef=ignored
        )

    def run(self, commands: Sequence[Spawn], deadline: Deadline) -> list[int | None]:
        """Run commands side by side."""
        pids = [self.spawn(command) for command in commands]
        while not self.statuses.keys() >= set(pids) and deadline.remaining:
            self.reap(block=True)
        return [self.statuses.get(pid) for pid in pids]

    def reap(self, *, block: bool) -> None:
        """Take in the ends of children."""
        try:
            pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            self.statuses[pid] = os.waitstatus_to_exitcode(status)
            self.reap(block=False)

    def exit_status(self, pid: int) -> int | None:
        """Return what was taken in."""
        return self.statuses.get(pid)

    def catch_up(self) -> None:
        """Take in the ends of children."""
        self.reap(block=False)

    def strays(self, tag: str) -> list[int]:
        """Look for what is left in the whole machine."""
        return self.tagged(tag)


class UnguardedLifecycle(HostLifecycle):
    """Nobody outlives us."""

    def prepare(self) -> None:
        """Have nothing to prepare."""

    def guard(self, root: str, recovery: Sequence[str], seconds: float = 0) -> int | None:  # noqa: ARG002 - there is nobody to tell
        """Give the deployment to nobody."""
        return None

    def unguard(self, root: str) -> None:
        """Take it back from nobody."""


class UnguardedClock(HostClock):
    """Time in which children may end."""

    def __init__(self, guardian: OwnGuardian, processes: UnguardedProcesses) -> None:
        super().__init__(guardian)
        self.processes = processes

    def pause(self, seconds: float) -> None:
        """Sleep."""
        super().pause(seconds)
        self.processes.reap(block=False)


class Unguarded(Host):
    """This machine, with nobody between the test process and what it starts."""

    def __init__(self) -> None:
        super().__init__()
        guardian = OwnGuardian()
        processes = UnguardedProcesses(guardian)
        self.processes = processes
        self.lifecycle = UnguardedLifecycle(guardian, processes.forget)
        self.clock = UnguardedClock(guardian, processes)


def measure(name: str, count: int, pairs: int, server: str) -> tuple[list[float], float]:
    """Return the ratios of the deployments' seconds, and the guardian's resident megabytes while one is up."""
    registry = Registry()
    laboratories = [Laboratory(server, machine, registry, None) for machine in (Host(), Unguarded())]
    ratios = []
    for number in range(pairs + 1):
        work = Work(server, free_ports(count), 0)
        # In turn first: who comes second finds the machine warmer.
        order = laboratories if number % 2 else laboratories[::-1]
        seconds = {lab: lab.contender(name)(work).deploy for lab in order}
        if number:
            ratios.append(seconds[laboratories[0]] / seconds[laboratories[1]])
    children = psutil.Process().children()
    megabytes = max((child.memory_info().rss for child in children), default=0) / 2**20
    for laboratory in laboratories:
        laboratory.machine.lifecycle.close()
    return ratios, megabytes


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="servers per deployment")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--managers", default="sysvinit,supervisord")
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("guardian")
    results.figure("servers", str(options.count))
    results.figure("pairs of deployments", str(options.pairs))
    table = results.table("Deployments through the guardian", "manager", "to those without it", "resident memory")
    with tempfile.TemporaryDirectory() as directory:
        server = compile_server(str(Path(directory)))
        for name in options.managers.split(","):
            ratios, megabytes = measure(name, options.count, options.pairs, server)
            ratio = statistics.median(ratios)
            table.row(name, f"x {ratio:.3f} ({min(ratios):.2f}..{max(ratios):.2f})", f"{megabytes:.1f} MB")
            results.bars.append(at_most(f"{name}, deploy, to one without the guardian", ratio, ALLOWED_RATIO))
            results.bars.append(at_most(f"{name}, the guardian's memory", megabytes, ALLOWED_MEGABYTES, " MB"))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
