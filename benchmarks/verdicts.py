"""How often the verdict about an instance is wrong, on a machine that has more to do than it can.

Two kinds of servers for which a look at the wrong moment is wrong: daemons that fork twice and write their PID file up
to three seconds later, which have to start and restart, many side by side; and servers that end by themselves within
0.3 s, each handed to a test of its own, which has to fail, whether the server is called not started or ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.results import Bar, Results, add_options

MANAGERS: Final = ("supervisord", "sysvinit", "systemd", "docker", "disnix")
SIDE_BY_SIDE: Final = 20

TESTS: Final = '''
"""Made by a benchmark: what it finds is in the report of this session."""

import json
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_nixproc import Instance, create_managed_process

ROUNDS, SERVERS, SIDE_BY_SIDE = json.loads(os.environ["VERDICTS"])

LATE = """
import os, signal, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
time.sleep(float(sys.argv[2]))
with open(sys.argv[1], "w") as file: print(os.getpid(), file=file)
signal.sigwait([signal.SIGTERM])
os.unlink(sys.argv[1])
"""
BRIEF = "import sys, time; time.sleep(float(sys.argv[1])); sys.exit(3)"


@pytest.mark.parametrize("number", range(ROUNDS))
def test_late(nixproc_deploy, number):
    chance = random.Random(number)

    def model(state):
        def late(name):
            pid_file = f"{state.runtime_dir}/{name}.pid"
            args = ["-I", "-S", "-c", LATE, pid_file, chance.uniform(0, 3)]
            return Instance(create_managed_process(name=name, daemon=sys.executable, args=args, pid_file=pid_file))

        return {name: late(name) for name in (f"late{place}" for place in range(SIDE_BY_SIDE))}

    with nixproc_deploy(model) as system, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        before = {name: system[name].pid for name in system}
        list(pool.map(lambda name: system[name].restart(), system))
        after = {name: system[name].pid for name in system}
        assert None not in (*before.values(), *after.values())
        assert not set(before.items()) & set(after.items())


@pytest.mark.parametrize("number", range(SERVERS))
def test_brief(nixproc_deploy, number):
    seconds = random.Random(number).uniform(0, 0.3)
    process = create_managed_process(name="brief", foreground_process=sys.executable, args=["-S", "-c", BRIEF, seconds])
    with nixproc_deploy({"brief": Instance(process)}) as system:
        system.machine.wait_until_succeeds(["test", "!", "-d", f"/proc/{system['brief'].pid}"], timeout=30)
'''


@dataclass(frozen=True)
class Size:
    """How much is tried on each manager."""

    rounds: int
    """How often the late daemons are deployed, and restarted."""

    servers: int
    """How many servers end by themselves."""


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep some processes computing for the time of a ``with`` block."""
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def verdicts(manager: str, size: Size) -> Counter[tuple[str, str]]:
    """Return how often each kind of server had which verdict on a manager."""
    with tempfile.TemporaryDirectory(prefix="verdicts-", dir="/var/tmp") as place:
        Path(place, "test_verdicts.py").write_text(TESTS)
        report = Path(place, "report.xml")
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", place]
        variables = {**os.environ, "VERDICTS": json.dumps([size.rounds, size.servers, SIDE_BY_SIDE])}
        done = subprocess.run(
            [*argv, f"--rootdir={place}", f"--nixproc-manager={manager}", "--nixproc-start-timeout=60"],
            cwd=place,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not report.exists():
            raise SystemExit(f"the tests could not be run on {manager}:\n{done.stdout}")
        found = Counter(map(verdict_of, ET.parse(report).iter("testcase")))  # noqa: S314 - pytest's own
        if any(is_wrong(kind, verdict) for kind, verdict in found):
            print(done.stdout, file=sys.stderr)
        return found


def verdict_of(case: ET.Element) -> tuple[str, str]:
    """Return the kind of servers that a test was about, and what it has ended with."""
    kind = case.get("name", "").partition("[")[0].removeprefix("test_")
    text = next((problem.get("message", "") for problem in case if problem.tag in ("failure", "error")), None)
    if text is None:
        return kind, "passed"
    known = {"did not start": "did not start", "NP215": "NP215", "NP201": "NP201"}
    return kind, next((verdict for phrase, verdict in known.items() if phrase in text), text.partition("\n")[0])


def is_wrong(kind: str, verdict: str) -> bool:
    """Tell whether a verdict is not one that such servers may have."""
    return verdict not in (("passed",) if kind == "late" else ("did not start", "NP215", "NP201"))


def main(argv: Sequence[str] | None = None) -> int:
    """Try both kinds of servers on each manager."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--managers", default=",".join(MANAGERS), help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=10, help=f"how often {SIDE_BY_SIDE} late daemons are deployed")
    parser.add_argument("--servers", type=int, default=500, help="how many servers end by themselves")
    parser.add_argument("--busy", type=int, default=8, help="how many processes compute beside it")
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("verdicts")
    table = results.table("Verdicts", "manager", "servers", "verdict", "how often")
    size = Size(options.rounds, options.servers)
    with busy(options.busy):
        for manager in options.managers.split(","):
            found = verdicts(manager, size)
            for (kind, verdict), number in sorted(found.items()):
                table.row(manager, kind, verdict, str(number))
            wrong = sum(number for (kind, verdict), number in found.items() if is_wrong(kind, verdict))
            total = found.total()
            holds = not wrong and total == size.rounds + size.servers
            results.bars.append(Bar(f"{manager}: no wrong verdict", f"{wrong} of {total}", holds))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
