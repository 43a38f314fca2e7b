"""The kill storm: pytest sessions that deploy are hit by signals at random moments, and nothing may be left of them.

Each round is a process of its own, which adopts every orphan of the session that it starts: what it has below it, once
the session is gone, is what the session has left.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.results import Bar, Results, add_results_option
from pytest_nixproc._persistence.assigner import Assigner
from pytest_nixproc._persistence.leases import VARIABLE, Leases
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import command_line, descendants, environment_of, is_alive, parents
from pytest_nixproc.machines.subreaper import become_subreaper
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.testing.conformance import driver_at
from pytest_nixproc.testing.pace import patient
from pytest_nixproc.values.tags import DEPLOYMENT

LIMIT_SECONDS: Final = 15.0
RUN_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.02
MANAGERS: Final = ("supervisord", "sysvinit", "docker", "systemd", "supervisord@nspawn")
LEASING_PROCESSES: Final = 16
PORTS_EACH: Final = 50

MODEL: Final = '''
"""Servers on two levels: in the foreground, as a daemon, and, if asked for, one that ignores SIGTERM."""

import os
import sys

from pytest_nixproc import Instance, create_managed_process
from pytest_nixproc.testing.programs.models import misbehaving, probe

WEB = """
import http.server, sys
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def processes(state, free_port, stubborn=False):
    names = ("web", "spool", "front", *(["stubborn"] if stubborn else []))
    ports = {name: free_port(name) for name in names}
    with open(os.environ["STORM_ROOTS"], "a") as file:
        file.write(f"{os.path.dirname(state.state_dir)}\\n")
    with open(os.environ["STORM_PORTS"], "a") as file:
        file.write("".join(f"{port}\\n" for port in ports.values()))
    pkg = create_managed_process(name="web", foreground_process=sys.executable, args=["-c", WEB, ports["web"]])
    web = Instance(pkg, port=ports["web"])
    spool = probe("spool", state, "daemon", port=ports["spool"])
    front = probe("front", state, port=ports["front"], dependencies=[web.pkg, spool.pkg])
    found = {"web": web, "spool": spool, "front": front}
    if stubborn:
        found["stubborn"] = misbehaving("stubborn", state, "foreground", "ignores-term", port=ports["stubborn"])
    return found
'''

MARKS: Final = '''
"""Tells the storm which phase each process of the session has reached."""

import os
import time

import pytest

# Open at once: a process without a free descriptor has phases, too.
DESCRIPTOR = os.open(os.environ["STORM_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def mark(phase):
    os.write(DESCRIPTOR, f"{os.getpid()} {phase}\\n".encode())


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    watched = fixturedef.argname in ("nixproc_machine", "nixproc_system")
    if watched:
        mark("deployment")
    result = yield
    if watched:
        mark("test")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    mark("teardown")
    result = yield
    mark("end")
    return result
'''

TEST: Final = """
from urllib.request import urlopen


def test_it(nixproc_system):
    for _ in range(20):
        urlopen(nixproc_system["web"].url, timeout=5).close()
    nixproc_system["front"].restart()
"""

COUNTED: Final = '''
"""A model of one program that counts its starts and orderly ends."""

import os
import sys

from pytest_nixproc import Instance, create_managed_process

PROGRAM = """
import http.server, os, signal, sys

def count(word):
    descriptor = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, word.encode() + bytes([10]))
    os.close(descriptor)

def end(*_):
    count("stop")
    os._exit(0)

signal.signal(signal.SIGTERM, end)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
count("start")
server.serve_forever()
"""


def processes(state, free_port, name="counted"):
    with open(os.environ["STORM_ROOTS"], "a") as file:
        file.write(f"{os.path.dirname(state.state_dir)}\\n")
    port = free_port(name)
    counts = os.environ["STORM_COUNTS"]
    place = os.path.dirname(counts)
    pkg = create_managed_process(
        name=name,
        foreground_process=sys.executable,
        args=["-c", PROGRAM, port, counts],
        overrides={"docker": {"container": {"docker_create_parameters": {"volume": f"{place}:{place}"}}}},
    )
    return {name: Instance(pkg, port=port)}
'''

SHARING: Final = """
import os
import signal
import time
from urllib.request import urlopen

import pytest
from conftest import mark

WORKERS = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])


def users():
    with open(os.environ["STORM_MARKS"]) as file:
        return {line.split()[0] for line in file if line.split()[1] == "using"}


@pytest.mark.parametrize("number", range(8))
def test_it(nixproc_system, number):
    mark("using")
    end = time.monotonic() + 30
    while len(users()) < WORKERS:
        assert time.monotonic() < end, "the other workers do not come"
        time.sleep(0.01)
    urlopen(nixproc_system["counted"].url, timeout=5).close()
    role = "starter" if nixproc_system.timeline.order("start") else "guest"
    if os.environ["STORM_VICTIM"] == role:
        try:
            os.close(os.open(os.environ["STORM_MARKS"] + ".killed", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True)
class Kind:
    """One kind of hit: how many workers the session has, who is hit, with what."""

    name: str
    workers: int
    victim: str
    number: int


KINDS: Final = tuple(
    Kind(f"{'-n 2: ' if workers else ''}{victim} {signal.Signals(number).name}", workers, victim, number)
    for workers, victim, number in (
        (0, "pytest", signal.SIGKILL),
        (0, "pytest", signal.SIGTERM),
        (0, "pytest", signal.SIGINT),
        (0, "group", signal.SIGKILL),
        (2, "worker", signal.SIGKILL),
        (2, "worker", signal.SIGTERM),
        (2, "controller", signal.SIGKILL),
        (2, "controller", signal.SIGTERM),
        (2, "controller", signal.SIGINT),
        (2, "group", signal.SIGKILL),
        (2, "group", signal.SIGINT),
    )
)


@dataclass(frozen=True)
class Order:
    """What a round is to do; ``spans`` are the seconds of an undisturbed run before and after its first deployment."""

    manager: str
    kind: str
    seed: int
    stubborn: bool = False
    spans: tuple[float, float] | None = None


@dataclass
class Outcome:
    """What a round has seen: the phase that was hit, the seconds until nothing was left, and what was left at last."""

    manager: str
    kind: str
    phase: str = ""
    seconds: float = 0.0
    left: dict[str, list[str]] = field(default_factory=dict)
    spans: tuple[float, float] = (0.0, 0.0)
    output: str = ""


class Session:
    """One pytest session in a project of its own, below this process, which starts nothing else meanwhile."""

    def __init__(self, place: str, files: dict[str, str]) -> None:
        self.place = place
        self.state_root = f"{place}/s"
        self.marks_file = f"{place}/marks"
        for name, text in files.items():
            (Path(place) / "project" / name).parent.mkdir(exist_ok=True)
            (Path(place) / "project" / name).write_text(text)
        self.begun = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.manager = ""
        self.bystander = ""
        """What the command lines of processes have that are below us too, but are none of the session's."""

        self.wrapper: tuple[str, ...] = ()
        """What pytest is executed by."""

        self.names_state_root = True
        """Whether the state root is an option; else it is the one that the environment leads to."""

        self._before = set(descendants([os.getpid()], parents()))
        """What is below this process for others: a guardian, say, of tests that have been run before."""

        self._drivers: dict[str, Driver] = {}
        self._groups: set[str] = set()

    def start(self, *options: str, manager: str = "", **variables: str) -> None:
        """Start pytest in a process group of its own."""
        self.manager = manager
        name, _, machine = manager.partition("@")
        options += (f"--nixproc-manager={name}",) if name else ()
        options += (f"--nixproc-machine={machine}",) if machine else ()
        names = {"STORM_MARKS": "marks", "STORM_PORTS": "ports", "STORM_ROOTS": "roots"}
        places = {variable: f"{self.place}/{name}" for variable, name in names.items()}
        argv = [*self.wrapper, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        argv += [f"--nixproc-state-root={self.state_root}"] if self.names_state_root else []
        foreign = ("NIXPROC_", "PYTEST_XDIST", "PYTEST_CURRENT", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.begun = time.monotonic()
        self.forget()
        with open(f"{self.place}/output", "wb") as output:
            self.process = subprocess.Popen(
                [*argv, *options],
                cwd=f"{self.place}/project",
                env={**clean, **places, **variables, VARIABLE: Leases().directory, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def forget(self) -> None:
        """Keep the process object from waiting for the end of a process: all ends are taken in together."""
        if self.process is not None:
            self.process.returncode = 0

    @property
    def pid(self) -> int:
        """The session's first process."""
        assert self.process is not None, "the session is not started"
        return self.process.pid

    @property
    def output(self) -> str:
        """What the session has printed."""
        return Path(f"{self.place}/output").read_text(errors="replace")

    def marks(self) -> dict[int, str]:
        """Return the phase that each process of the session has reached."""
        if not os.path.exists(self.marks_file):
            return {}
        lines = (line.split() for line in Path(self.marks_file).read_text().splitlines())
        return {int(pid): phase for pid, phase in lines}

    def is_over(self) -> bool:
        """Tell whether the first process has ended."""
        adopt_ends()
        return not is_alive(self.pid)

    def await_deployment(self) -> None:
        """Wait until the first deployment begins, or the session ends."""
        wait(lambda: bool(self.marks()) or self.is_over(), RUN_SECONDS)

    def left(self) -> dict[str, list[str]]:
        """Return what there is of the session and its deployments, by kind of trace."""
        adopt_ends()
        found = {
            "control groups": self.control_groups(),
            "processes": self.processes(),
            "ports": self.ports(),
            "directories": os.listdir(self.state_root) if os.path.isdir(self.state_root) else [],
            "leases": self.leases(),
            "remains": [trace for driver in self.drivers() for trace in driver.remains()],
        }
        return {kind: traces for kind, traces in found.items() if traces}

    def processes(self) -> list[str]:
        """Return the processes below us, and those whose tag names the session's state root."""
        table = parents()
        tag = f"{DEPLOYMENT}={self.state_root}/".encode()
        tagged = [pid for pid in table if any(part.startswith(tag) for part in environment_of(pid).split(b"\0"))]
        found = {*tagged, *descendants([os.getpid()], table)} - self._before
        commands = {pid: command_line(pid) for pid in sorted(found) if is_alive(pid)}
        return [
            f"{pid} (below {table[pid]}): {command}"
            for pid, command in commands.items()
            if not (self.bystander and self.bystander in command)
        ]

    def ports(self) -> list[str]:
        """Return the leased ports that are listened on, but for those that another round has now."""
        file = Path(f"{self.place}/ports")
        ours = set(map(int, file.read_text().split())) if file.exists() else set()
        found = {}
        for item in psutil.net_connections("tcp") if ours else ():
            if item.status == psutil.CONN_LISTEN and item.laddr and not self.is_foreign(item.pid):
                found[item.laddr.port] = item.pid
        return [f"{port} by {pid}" for port, pid in found.items() if port in ours]

    def is_foreign(self, pid: int | None) -> bool:
        """Tell whether a process carries the tag of other deployments."""
        tags = [part for part in environment_of(pid or 0).split(b"\0") if part.startswith(f"{DEPLOYMENT}=".encode())]
        return bool(tags) and not any(tag.startswith(f"{DEPLOYMENT}={self.state_root}/".encode()) for tag in tags)

    def leases(self) -> list[str]:
        """Return the files among the leases, half written ones included, that name the session's state root."""
        found = []
        for path in Path(Leases().directory).glob("*"):
            with suppress(OSError):
                if self.state_root in path.read_text(errors="replace"):
                    found.append(str(path))
        return found

    def control_groups(self) -> list[str]:
        """Return the control groups of the session's machines, which are named after their directories."""
        if os.path.isdir(self.state_root):
            self._groups |= {f"nixproc-{name}" for name in os.listdir(self.state_root)}
        return [path for path, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(path) in self._groups]

    def drivers(self) -> list[Driver]:
        """Return drivers that see what the session's manager has of its deployments."""
        file = Path(f"{self.place}/roots")
        for root in file.read_text().split() if self.manager and file.exists() else ():
            if root not in self._drivers:
                self._drivers[root] = driver_at(Registry().manager(self.manager.partition("@")[0]), Host(), root)
        return list(self._drivers.values())

    def clean_up(self) -> None:
        """End everything that is left, so that the next round is not disturbed."""
        for _ in range(100):
            if not (pids := [int(line.split()[0]) for line in self.processes()]):
                break
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            adopt_ends()
        for driver in self._drivers.values():
            driver.close(driver.machine.deadline(LIMIT_SECONDS))
        leases = Leases()
        for lease in leases.all():
            if lease.root.startswith(f"{self.state_root}/"):
                leases.remove(lease.root)


def adopt_ends() -> None:
    """Take in the ends of all children."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def wait(look: Callable[[], bool], seconds: float) -> bool:
    """Look until it is true or the time is over, which is longer where others keep the processors busy."""
    return patient(partial(look_until, look), seconds)


def look_until(look: Callable[[], bool], seconds: float) -> bool:
    """Look until it is true or the time is over."""
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


@contextmanager
def session(files: dict[str, str]) -> Iterator[Session]:
    """Return a session in a place with a short path; everything of it is removed in the end."""
    place = tempfile.mkdtemp(prefix="ks")
    one = Session(place, files)
    try:
        yield one
    finally:
        if one.process is not None:
            one.clean_up()
            one.forget()
        shutil.rmtree(place)


def storm_files() -> dict[str, str]:
    """Return the project of the storm: four modules, with a system each."""
    tests = {f"test_{number}.py": TEST for number in range(4)}
    return {"processes.py": MODEL, "conftest.py": MARKS, "pytest.ini": "[pytest]\n", **tests}


def run_round(order: Order) -> Outcome:
    """Run a session, hit it, and wait until nothing is left of it."""
    become_subreaper()
    kind = next(kind for kind in KINDS if kind.name == order.kind)
    with session(storm_files()) as one:
        options = ["--nixproc-model=processes.py", "--nixproc-stop-timeout=1"]
        options += ["-n", str(kind.workers)] if kind.workers else ["-p", "no:xdist", "test_0.py"]
        options += ["--nixproc-param=stubborn=true"] if order.stubborn else []
        one.start(*options, manager=order.manager)
        outcome = Outcome(order.manager, order.kind)
        if order.spans is None:
            measure(one, outcome)
        else:
            hit_at_random(one, kind, order, outcome)
        hit = time.monotonic()
        wait(lambda: not one.left(), LIMIT_SECONDS)
        outcome.seconds = time.monotonic() - hit
        outcome.left = one.left()
        if outcome.left:
            outcome.output = one.output[-3000:]
    return outcome


def measure(one: Session, outcome: Outcome) -> None:
    """Let a session run to its end, and note how long it takes."""
    one.await_deployment()
    deployed = time.monotonic()
    assert wait(one.is_over, RUN_SECONDS), "an undisturbed session does not end"
    if " passed" not in one.output:
        outcome.left["failure of an undisturbed run"] = [one.output]
    outcome.spans = (deployed - one.begun, time.monotonic() - deployed)


def hit_at_random(one: Session, kind: Kind, order: Order, outcome: Outcome) -> None:
    """Hit a session: mostly after its first deployment has begun, now and then before."""
    assert order.spans is not None, "a hit needs an undisturbed run before it"
    chance = random.Random(order.seed)  # noqa: S311 - the same numbers for the same seed are what is wanted
    before, after = order.spans
    if chance.random() < 0.9:
        one.await_deployment()
        time.sleep(chance.uniform(0, after))
    else:
        time.sleep(chance.uniform(0, before + after))
    victim = one.pid
    if kind.victim == "worker":
        workers = sorted(set(one.marks()) - {one.pid})
        victim = chance.choice(workers) if workers else 0
    phases = one.marks()
    outcome.phase = phases.get(victim, "") or "+".join(sorted(set(phases.values()))) or "start"
    if one.is_over():
        outcome.phase = "over"
    with suppress(ProcessLookupError):
        if kind.victim == "group":
            os.killpg(one.pid, kind.number)
        elif victim:
            os.kill(victim, kind.number)


def run_share(manager: str, victim: str) -> Outcome:
    """Let four workers share a deployment, one of which may be killed; it is to start once and end once."""
    become_subreaper()
    outcome = Outcome(manager, f"share, {victim} killed" if victim else "share")
    files = {"processes.py": COUNTED, "conftest.py": MARKS, "pytest.ini": "[pytest]\n", "test_it.py": SHARING}
    with session(files) as one:
        counts = f"{one.place}/counts"
        options = ["-n", "4", "--nixproc-scope=session", "--nixproc-share", "--nixproc-model=processes.py"]
        one.start(*options, manager=manager, STORM_COUNTS=counts, STORM_VICTIM=victim)
        if not wait(one.is_over, RUN_SECONDS):
            outcome.left["sessions without end"] = [one.output]
        over = time.monotonic()
        wait(lambda: not one.left(), LIMIT_SECONDS)
        outcome.seconds = time.monotonic() - over
        outcome.left |= one.left()
        counted = Path(counts).read_text().split() if os.path.exists(counts) else []
        if counted != ["start", "stop"]:
            outcome.left["counts"] = counted or ["none"]
        expected = "1 failed, 7 passed" if victim else "8 passed"
        if expected not in one.output:
            outcome.left["results"] = [one.output[-200:]]
        if outcome.left:
            outcome.output = one.output[-3000:]
    return outcome


def run_leasing(_: int) -> Outcome:
    """Let processes lease ports side by side; a port that two of them have is a leftover."""
    begun = time.monotonic()
    outcome = Outcome("-", f"{LEASING_PROCESSES} processes lease {PORTS_EACH} ports each")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(LEASING_PROCESSES)
    with tempfile.TemporaryDirectory(prefix="kl") as place:
        lease = partial(lease_ports, place, barrier)
        members = [context.Process(target=lease, args=(number,)) for number in range(LEASING_PROCESSES)]
        for member in members:
            member.start()
        for member in members:
            member.join()
        ports = [int(port) for path in Path(place).glob("*.ports") for port in path.read_text().split()]
        if len(ports) != len(set(ports)):
            outcome.left["duplicates"] = sorted({str(port) for port in ports if ports.count(port) > 1})
        if len(ports) != LEASING_PROCESSES * PORTS_EACH:
            outcome.left["missing"] = [f"{len(ports)} ports"]
        if left := os.listdir(f"{place}/top") if os.path.isdir(f"{place}/top") else []:
            outcome.left["leases"] = left
    outcome.seconds = time.monotonic() - begun
    return outcome


def lease_ports(place: str, barrier: Any, number: int) -> None:
    """Lease ports at the same time as all others, and keep them until all others have theirs."""
    assigner = Assigner(Leases(f"{place}/top/leases"), Host(), f"{place}/{number}")
    barrier.wait(RUN_SECONDS)
    ports = [assigner.free_port(f"port{index}") for index in range(PORTS_EACH)]
    Path(f"{place}/{number}.ports").write_text(" ".join(map(str, ports)))
    barrier.wait(RUN_SECONDS)
    assigner.release()


def in_own_process(order: dict[str, Any]) -> Outcome:
    """Carry an order out in a process of its own."""
    argv = [sys.executable, os.path.abspath(__file__), "--order", json.dumps(order)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return Outcome("-", "storm", left={"crash of a round": [json.dumps(order)]})
    return Outcome(**json.loads(done.stdout))


def carry_out(order: dict[str, Any]) -> Outcome:
    """Carry an order out here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "victim" in order:
        return run_share(order["manager"], order["victim"])
    return run_leasing(order["seed"]) if "kind" not in order else run_round(Order(**order))


def storm_orders(managers: Sequence[str], rounds: int, seed: int, rounds_on_machines: int | None = None) -> list[Order]:
    """Return the rounds of the storm: the kinds take turns; every third round has a program that ignores SIGTERM.

    On throwaway machines, which have to boot for each round, there may be fewer.
    """
    fewer = rounds if rounds_on_machines is None else min(rounds, rounds_on_machines)
    chance = random.Random(seed)  # noqa: S311 - the same numbers for the same seed are what is wanted
    return [
        Order(manager, KINDS[number % len(KINDS)].name, chance.randrange(1 << 30), number % 3 == 2)
        for number in range(rounds)
        for manager in managers
        if number < (fewer if "@" in manager else rounds)
    ]


def short_orders(managers: Sequence[str], seed: int) -> list[Order]:
    """Return the rounds of a short storm: one of each kind, for which the managers take turns."""
    rounds, many = storm_orders(managers, len(KINDS), seed), len(managers)
    # One further after each turn: else the last of three managers would have all programs that ignore SIGTERM.
    turns = [(number + number // many) % many for number in range(len(KINDS))]
    return [rounds[number * many + turn] for number, turn in enumerate(turns)]


def measurements(orders: Sequence[Order]) -> list[Order]:
    """Return orders for the undisturbed runs that others need: their managers, with and without workers."""
    kinds = [next(kind for kind in KINDS if kind.workers == workers) for workers in (0, 2)]
    needed = {key_of(order.manager, order.kind) for order in orders}
    managers = dict.fromkeys(order.manager for order in orders)
    return [Order(name, kind.name, 0) for name in managers for kind in kinds if key_of(name, kind.name) in needed]


def key_of(manager: str, kind: str) -> tuple[str, bool]:
    """Return what the time of an undisturbed run depends on: the manager, and whether there are workers."""
    return manager, kind.startswith("-n")


def report(results: Results, outcomes: Sequence[Outcome]) -> None:
    """Add the table, and print details of what was left."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.manager, outcome.kind), []).append(outcome)
    table = results.table("Rounds", "manager", "hit", "rounds", "clean", "median s", "slowest s", "phases hit", "left")
    for (manager, kind), group in sorted(groups.items()):
        seconds = [outcome.seconds for outcome in group]
        phases = [outcome.phase for outcome in group if outcome.phase]
        counted = ", ".join(f"{phase} {phases.count(phase)}" for phase in sorted(set(phases)))
        left = sorted({trace for outcome in group for trace in outcome.left})
        clean = sum(not outcome.left for outcome in group)
        numbers = (str(len(group)), str(clean), f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}")
        table.row(manager, kind, *numbers, counted, ", ".join(left) or "nothing")
    clean = sum(not outcome.left for outcome in outcomes)
    results.bars.append(Bar("every round leaves nothing", f"{clean} of {len(outcomes)}", clean == len(outcomes)))
    for outcome in outcomes:
        if outcome.left:
            print(f"\n{outcome.manager}, {outcome.kind}, hit in {outcome.phase!r}, {outcome.seconds:.1f} s:")
            print(json.dumps(outcome.left, indent=2))
            print(outcome.output)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=200, help="hits per manager")
    parser.add_argument("--machine-rounds", type=int, default=50, help="at most so many on a throwaway machine")
    parser.add_argument(
        "--managers", default=",".join(MANAGERS), help="NAME or NAME@MACHINE; those that cannot run here are left out"
    )
    parser.add_argument("--lease-rounds", type=int, default=20)
    parser.add_argument("--share-rounds", type=int, default=20, help="runs that share a deployment, of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="rounds side by side")
    parser.add_argument(
        "--short", action="store_true", help="one hit of each kind, one lease round, one run that shares of each kind"
    )
    add_results_option(parser)
    parser.add_argument("--order", help=argparse.SUPPRESS)
    return parser.parse_args()


def unavailable_reason_of(name: str) -> str:
    """Say why a manager cannot run here, on the machine that is named with it."""
    manager, _, machine = name.partition("@")
    kind = Registry().machine(machine or "host")
    return kind.unavailable_reason() or Registry().manager(manager).unavailable_reason(kind)


def able(names: Sequence[str]) -> list[str]:
    """Return the managers that can run here, and say why others cannot."""
    reasons = {name: unavailable_reason_of(name) for name in names}
    for name, reason in reasons.items():
        if reason:
            print(f"{name} cannot run here: {reason}", file=sys.stderr)
    return [name for name in names if not reasons[name]]


def share_orders(managers: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Return the runs that share a deployment, which throwaway machines refuse."""
    victims = ("", "starter", "guest")
    numbers = range(rounds if managers else 0)
    return [{"manager": managers[number % len(managers)], "victim": victim} for number in numbers for victim in victims]


def orders_of(options: argparse.Namespace, managers: Sequence[str]) -> tuple[list[Order], list[dict[str, Any]]]:
    """Return what is to be done: the hits, and what needs no undisturbed run before it."""
    if options.short:
        options.lease_rounds = options.share_rounds = 1
        storm = short_orders(managers, options.seed) if managers else []
    else:
        storm = storm_orders(managers, options.rounds, options.seed, options.machine_rounds)
    sharing = share_orders([name for name in managers if "@" not in name], options.share_rounds)
    return storm, [*({"seed": number} for number in range(options.lease_rounds)), *sharing]


def main() -> int:
    """Run the storm; the exit status is 1 if anything was left."""
    options = arguments()
    if options.order:
        print(json.dumps(asdict(carry_out(json.loads(options.order)))))
        return 0
    results = Results("kill_storm")
    results.figure("rounds side by side", str(options.jobs))
    managers = able(options.managers.split(","))
    storm, others = orders_of(options, managers)
    with ThreadPoolExecutor(options.jobs) as pool:
        measured = list(pool.map(in_own_process, map(asdict, measurements(storm))))
        spans = {key_of(one.manager, one.kind): one.spans for one in measured}
        timed = [replace(order, spans=spans[key_of(order.manager, order.kind)]) for order in storm]
        orders = [*others, *map(asdict, timed)]
        outcomes = []
        for number, outcome in enumerate(pool.map(in_own_process, orders), 1):
            outcomes.append(outcome)
            if outcome.left or number % 20 == 0:
                print(f"{number} of {len(orders)} rounds; left: {outcome.left}", file=sys.stderr, flush=True)
    report(results, [*(one for one in measured if one.left), *outcomes])
    return results.finish(options.results, check=True)


if __name__ == "__main__":
    sys.exit(main())
