"""How long the checks take: static rules against one pass over the same model, live rules against one over /proc.

python benchmarks/checks.py            both
python benchmarks/checks.py static     models of 1,000 to 100,000 instances
python benchmarks/checks.py live       100 instances under sysvinit and supervisord
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from benchmarks.results import Results, add_options, at_most
from benchmarks.servers import Work, compile_server, free_ports
from benchmarks.servers import model_of as model_of_servers
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.checks.api import RuleInput
from pytest_nixproc.checks.rulebook import Rulebook
from pytest_nixproc.machines.process_table import read_facts
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target

STATE: Final = StateDirs.under("/srv/state")
SIZES: Final = (1_000, 10_000, 100_000)
SECONDS_BAR: Final = 1.0
"""For a model of 10,000 instances."""

GROWTH_BAR: Final = 1.6
"""How much more an instance may cost in a model a hundred times as large, which does not fit into the caches."""

ROUNDS: Final = 3
LEAST: Final = 20_000
"""How many instances are looked at in all, so that small models are measured often enough."""

INSTANCES: Final = 100


def instance(number: int) -> Instance:
    """Return one of many instances that claim what real ones do: ports, files, a directory, an account.

    There are more instances than ports, so those of one port differ by their address.
    """
    name, port, address = f"web{number}", number % 60000 + 1024, f"127.0.{number // 60000}.1"
    pkg = create_managed_process(
        name=name,
        instance_name=name,
        process="/usr/bin/web",
        args=["--config", f"/srv/state/{name}/web.conf", f"--log-file=/srv/state/log/{name}.log", "-v"],
        environment={"PID_FILE": f"/srv/state/run/{name}-own.pid", "UPSTREAM": "http://example.org:1/"},
        credentials={"users": {name: {"group": name}}, "groups": {name: {}}},
    )
    directory, socket = f"/srv/state/lib/{name}", f"/srv/state/run/{name}.sock"
    return Instance(pkg, port=port, bind_address=address, data_dir=directory, socket=socket)


def model_of(size: int) -> ProcessesModel:
    """Return a model."""
    return ProcessesModel({f"web{number}": instance(number) for number in range(size)})


def one_pass(model: ProcessesModel) -> int:
    """Look at every value of a model once: the floor."""
    seen = 0
    for item in model.values():
        process = item.pkg
        for value in (*item.attributes.values(), *process.args, *process.environment.values()):
            seen += len(str(value))
        seen += len(process.credentials.users) + len(process.credentials.groups)
    return seen


def seconds(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return how much processor time something takes, which others on the machine do not change much; the median."""
    taken = []
    for _ in range(rounds):
        gc.collect()
        begun = time.process_time()
        action()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def static(results: Results) -> None:
    """Measure how long the static rules take, and how that grows with the models."""
    rules = Registry().rules
    target = Target(STATE, "/srv/profile")

    def check(model: ProcessesModel) -> None:
        found = Rulebook(rules).static(RuleInput(model, target))
        assert not found, found[0]

    table = results.table("Static rules", "instances", "one pass", "static rules", "per instance", "to one pass")
    cost: dict[int, float] = {}
    for size in SIZES:
        model, rounds = model_of(size), max(ROUNDS, LEAST // size)
        floor, taken = (seconds(partial(action, model), rounds) for action in (one_pass, check))
        cost[size] = taken / size
        each, ratio = f"{cost[size] * 1e6:.1f} µs", f"x {taken / floor:.1f}"
        table.row(f"{size:,}", f"{floor:.4f} s", f"{taken:.3f} s", each, ratio)
    growth = cost[SIZES[-1]] / cost[SIZES[0]]
    results.bars.append(at_most("static rules, 10,000 instances", cost[10_000] * 10_000, SECONDS_BAR, " s"))
    results.bars.append(at_most(f"an instance of {SIZES[-1]:,}, to one of {SIZES[0]:,}", growth, GROWTH_BAR))


def pass_over_proc(pids: Iterable[int]) -> int:
    """Read what the kernel shows of processes once, and look at each of their open files: the floor."""
    seen = 0
    for pid in pids:
        for name in ("stat", "status", "environ"):
            seen += len(read_facts(f"/proc/{pid}/{name}"))
        seen += len(os.readlink(f"/proc/{pid}/cwd"))
        for entry in os.listdir(f"/proc/{pid}/fd"):
            seen += len(os.readlink(f"/proc/{pid}/fd/{entry}")) + os.lstat(f"/proc/{pid}/fd/{entry}").st_mode
    return seen


def live(results: Results, count: int) -> None:
    """Measure how long a look at a running system and the live rules take, against one pass over its processes."""
    registry = Registry()
    machine = registry.machine("host")()
    head = ("manager", "one pass over /proc", "look and live rules", "to one pass")
    table = results.table(f"Live rules, {count} servers", *head)
    with tempfile.TemporaryDirectory() as directory:
        work = Work(compile_server(directory), free_ports(count), delay=0)
        for name in ("sysvinit", "supervisord"):
            planner = Planner(registry.manager(name), machine, registry.rules, Settings())
            system = System(planner)
            system.start(lambda _: model_of_servers(work))
            try:
                pids = [instance.pid or 0 for instance in system.values()]
                floor = seconds(lambda: pass_over_proc(pids))  # noqa: B023 - called at once
                taken = seconds(system.assert_no_conflicts)
            finally:
                system.stop()
            table.row(name, f"{floor * 1e3:.1f} ms", f"{taken * 1e3:.1f} ms", f"x {taken / floor:.2f}")
    machine.lifecycle.close()


def main() -> int:
    """Measure, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="?", choices=["static", "live"])
    add_options(parser)
    options = parser.parse_args()
    results = Results("checks")
    if options.which != "live":
        static(results)
    if options.which != "static":
        live(results, INSTANCES)
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
