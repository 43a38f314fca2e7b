"""Chaos: sessions of pytest that deploy meet limits, full disks, odd environments, frozen and killed processes.

Each scenario is a process of its own, in PID, mount, IPC and network namespaces, with its own temporary directories,
state root, leases and control group, so it disturbs nobody. It has to end within its limit; either everything passes,
or a line names the path or the process and what to do; and nothing is left, or exactly what was named.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from threading import Event
from typing import Any, Final

from benchmarks.results import Results, add_options
from tests.crash.chaos_damage import die, run_damage
from tests.crash.chaos_scenarios import SCENARIOS, Scenario
from tests.crash.chaos_scene import (
    Scene,
    control_group,
    furnish,
    hit_in,
    reveals_us,
    unnamed,
)
from tests.crash.storm import LIMIT_SECONDS, RUN_SECONDS, Outcome, able, report, wait

MANAGERS: Final = "supervisord,sysvinit,systemd,docker,disnix,supervisord@nspawn"
ATTEMPTS: Final = 5
CASE_SECONDS: Final = 900.0
REMEDY: Final = re.compile(r"fix:|umount|nixproc reap|kill |raise |remove |choose |make room|let ")
MOMENTS_OF_A_ROUND: Final = 12
RUNNING: Final[set[subprocess.Popen[str]]] = set()
STOPPED: Final = Event()
UNSHARE: Final = ("--pid", "--mount", "--ipc", "--net", "--fork", "--mount-proc", "--kill-child")


@dataclass
class ChaosOutcome(Outcome):
    """What a scenario has come to."""

    scenario: str = ""
    hit: bool = True
    """Whether what was to be hit was hit: else the round does not count."""

    told: str = ""
    """The line that tells of the disturbance; empty if everything passed."""

    misses: int = 0
    """Rounds before this one that hit nothing."""

    inner: int = 1
    """Rounds that the scenario consists of."""

    problems: dict[str, list[str]] = field(default_factory=dict)


def carry_out(order: dict[str, Any]) -> ChaosOutcome:
    """Run one scenario in the namespaces that this process is the first of."""
    furnish()
    scenario = next(one for one in SCENARIOS if one.name == order["scenario"])
    scene = Scene(order["manager"], order["seed"], order["attempt"], order["moments"])
    outcome = ChaosOutcome(order["manager"], scenario.kind, scenario=scenario.name)
    try:
        scenario.prepare(scene)
        if scenario.damage:
            outcome.hit = die(scene)
            if outcome.hit:
                outcome.inner, outcome.left = run_damage(scene, scenario.damage)
        else:
            run_session(scene, scenario, outcome)
        outcome.output = scene.session.output[-6000:]
    finally:
        scene.end()
    return outcome


def run_session(scene: Scene, scenario: Scenario, outcome: ChaosOutcome) -> None:
    """Run a session, disturb it, and judge what it says and leaves."""
    scene.begin()
    for phase, victim, hit in scenario.hits:
        outcome.phase = phase
        if not hit_in(scene, phase, victim, hit):
            outcome.hit = False
            return
    begun = time.monotonic()
    if not wait(scene.session.is_over, RUN_SECONDS):
        outcome.left["no end"] = [f"of {scene.session.pid} within {RUN_SECONDS} s", *scene.session.processes()]
        return
    scene.await_end_of_what_is_left(scene.session.output, LIMIT_SECONDS)
    outcome.seconds = time.monotonic() - begun
    judge(scene, scenario, outcome)


def judge(scene: Scene, scenario: Scenario, outcome: ChaosOutcome) -> None:
    """Hold what is left, and what was said, against what has to be."""
    said = scene.session.output
    left = scene.left()
    if reveals_us(said):
        outcome.left["traceback"] = [reveals_us(said)]
    if not scenario.silent and not has_passed(said):
        others = scenario.said_by_others
        outcome.told = others if others and others in said else telling_line(said, scene.names)
        if not outcome.told:
            outcome.left["no word"] = [f"no line names one of {sorted(scene.names)} and what to do"]
    hidden = unnamed(left, said)
    if hidden and not scenario.reaped:
        outcome.left |= {f"unnamed {kind}": traces for kind, traces in hidden.items()}
    settle(scene, outcome, left)


def settle(scene: Scene, outcome: ChaosOutcome, left: dict[str, list[str]]) -> None:
    """Undo the disturbance; then reap has to remove what is left."""
    for undo in scene.undo:
        try:
            undo()
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            outcome.left["after undoing"] = [repr(error)]
    if left and scene.await_end_of_what_is_left("", 2):
        said = scene.reap()
        scene.await_end_of_what_is_left(said, 2)
        if reveals_us(said):
            outcome.left["traceback of reap"] = [said]
        after = unnamed(scene.left(), said).items()
        outcome.left |= {f"{kind} after reap": [*traces, said] for kind, traces in after}


def has_passed(said: str) -> bool:
    """Tell whether everything has passed."""
    last = said.strip().rpartition("\n")[2]
    return " passed" in last and " failed" not in last and " error" not in last


def telling_line(said: str, names: set[str]) -> str:
    """Return the line that names what was disturbed, if it or one of the next says what to do."""
    lines = said[said.find("=\n_") + 1 :].splitlines()
    for number, line in enumerate(lines):
        if any(name in line for name in names) and any(map(REMEDY.search, lines[number : number + 12])):
            return line.strip()
    return ""


def in_own_namespaces(order: dict[str, Any]) -> ChaosOutcome:
    """Run one scenario in namespaces and a control group of its own."""
    failed = ChaosOutcome(order["manager"], kind_of(order["scenario"]), scenario=order["scenario"])
    with control_group() as group:
        enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
        argv = ["/bin/sh", "-c", f'{enter}exec "$@"', "sh", shutil.which("unshare") or "unshare", *UNSHARE]
        argv += [sys.executable, os.path.abspath(__file__), "--order", json.dumps(order)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        RUNNING.add(process)
        try:
            printed, complaint = process.communicate(timeout=CASE_SECONDS)
        except subprocess.TimeoutExpired:
            # Its child, the first process of the namespace, goes with it, and all others with that.
            process.kill()
            process.communicate()
            failed.left = {"no end": [f"within {CASE_SECONDS} s"]}
            return failed
    if process.returncode != 0:
        failed.left = {"crash of a round": [complaint[-3000:]]}
        return failed
    return ChaosOutcome(**json.loads(printed.splitlines()[-1]))


def end_all() -> None:
    """End all scenarios, and let none begin."""
    STOPPED.set()
    for process in tuple(RUNNING):
        process.kill()


def kind_of(name: str) -> str:
    """Return the kind of a scenario."""
    return next(scenario.kind for scenario in SCENARIOS if scenario.name == name)


def until_hit(order: dict[str, Any]) -> ChaosOutcome:
    """Run a scenario until it hits: a round whose victim was gone, or whose phase was over, does not count."""
    outcome = ChaosOutcome(order["manager"], kind_of(order["scenario"]), scenario=order["scenario"])
    for attempt in range(ATTEMPTS):
        if STOPPED.is_set():
            break
        outcome = in_own_namespaces({**order, "attempt": attempt, "seed": order["seed"] + attempt})
        outcome.misses = attempt
        if outcome.hit:
            return outcome
    outcome.left["nothing hit"] = [f"in {ATTEMPTS} rounds", outcome.output[-1500:]]
    return outcome


def orders_of(options: argparse.Namespace, managers: Sequence[str]) -> list[dict[str, Any]]:
    """Return what is to be run: every scenario on every manager, or one of each kind, for which managers take turns."""
    chance = random.Random(options.seed)  # noqa: S311 - the same numbers for the same seed are what is wanted
    chosen = [one for one in SCENARIOS if re.search(options.scenarios, f"{one.kind}: {one.name}")]
    found = []
    for number, scenario in enumerate(one_of_each(chosen, chance) if options.short else chosen):
        reason = scenario.unavailable()
        able_ones = [name for name in managers if not scenario.managers or name in scenario.managers]
        if reason or not able_ones:
            print(f"{scenario.name} cannot be tried here: {reason or 'none of the managers'}", file=sys.stderr)
            continue
        for manager in [able_ones[number % len(able_ones)]] if options.short or options.turns else able_ones:
            for _ in range(options.rounds):
                facts = {"scenario": scenario.name, "manager": manager, "seed": chance.randrange(1 << 30)}
                found.append({**facts, "moments": MOMENTS_OF_A_ROUND if options.short else options.moments})
    return found


def one_of_each(scenarios: Sequence[Scenario], chance: random.Random) -> list[Scenario]:
    """Return a scenario of each kind, chosen at random from those that can be tried here on any manager."""
    able_here = [one for one in scenarios if not one.unavailable() and not one.managers]
    kinds = dict.fromkeys(scenario.kind for scenario in able_here)
    return [chance.choice([one for one in able_here if one.kind == kind]) for kind in kinds]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--managers", default=MANAGERS, help="those that cannot run here are left out")
    parser.add_argument(
        "-k", "--scenarios", default="", metavar="PATTERN", help="only those whose kind: name it matches"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each is tried on each manager")
    parser.add_argument("--moments", type=int, default=MOMENTS_OF_A_ROUND, help="damaged bytes per round; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="scenarios side by side")
    parser.add_argument("--short", action="store_true", help="one scenario of each kind")
    parser.add_argument("--turns", action="store_true", help="each scenario on one manager, for which they take turns")
    parser.add_argument("--list", action="store_true", help="print the scenarios")
    parser.add_argument("--order", help=argparse.SUPPRESS)
    add_options(parser)
    return parser.parse_args()


def as_they_end(pool: ThreadPoolExecutor, orders: Sequence[dict[str, Any]]) -> Iterator[ChaosOutcome]:
    """Yield the outcomes, and tell what each was."""
    for number, future in enumerate(as_completed([pool.submit(until_hit, order) for order in orders]), 1):
        outcome = future.result()
        verdict = outcome.told or "clean"
        if outcome.left:
            verdict = f"NOT CLEAN: {json.dumps(outcome.left, indent=1)}\n{outcome.output}"
        where = f"{outcome.manager}: {outcome.kind}: {outcome.scenario}"
        print(f"{number}/{len(orders)} {where}: {verdict}", file=sys.stderr, flush=True)
        yield outcome


def main() -> int:
    """Run the scenarios; with ``--check``, the exit status is 1 unless all end as they have to."""
    options = arguments()
    if options.order:
        print(json.dumps(asdict(carry_out(json.loads(options.order)))), flush=True)
        # The thread that listens to the session need not end first.
        os._exit(0)
    if options.list:
        print(*(f"{scenario.kind}: {scenario.name}" for scenario in SCENARIOS), sep="\n")
        return 0
    results = Results("chaos")
    orders = orders_of(options, able(options.managers.split(",")))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            outcomes = list(as_they_end(pool, orders))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise
    results.figure("scenarios", str(len({outcome.scenario for outcome in outcomes})))
    results.figure("rounds that hit nothing, and were tried again", str(sum(outcome.misses for outcome in outcomes)))
    results.figure("damaged records", str(sum(one.inner for one in outcomes if one.kind == "records")))
    report(results, outcomes)
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
