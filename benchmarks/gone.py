"""How soon the servers of a deployment are gone when its test process is killed, against who kills and reaps them.

A process deploys the servers and is killed (SIGKILL) then; what is measured is the time until none of them runs, and
until nothing is left of the deployment. The floor is a process that kills the very same servers, which are its
children, one after the other, and waits for all of them. The servers are those of Python's ``http.server``, and for
comparison those of the other benchmarks, which have nothing that the kernel would have to tear down.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.deploy import Laboratory
from benchmarks.results import Results, add_options, at_most
from benchmarks.servers import LIMIT_SECONDS, POLL_SECONDS, Work, await_ports, compile_server, free_ports, model_of
from benchmarks.sessions import able
from pytest_nixproc import System
from pytest_nixproc._registry import Registry

ALLOWED_RATIO: Final = 10.0
MANAGERS: Final = ("supervisord", "sysvinit", "systemd")
HEAD: Final = ("servers", "manager", "floor, ms", "all servers gone, ms", "nothing left, ms", "ratio")
PYTHON_SERVER: Final = f"""#!{sys.executable} -IS
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()
"""
DEPLOY: Final = "from benchmarks.gone import deploy; import sys; deploy(*sys.argv[1:])"


@dataclass(frozen=True)
class End:
    """What the end of one test process has led to, in seconds after it."""

    gone: float
    """Until none of its servers ran any more."""

    clean: float
    """Until nothing of the deployment was left."""


def deploy(server: str, name: str, state_root: str, *ports: str) -> None:
    """Deploy servers, say where and which processes they are, and wait to be killed; runs in a process of its own."""
    registry = Registry()
    laboratory = Laboratory(server, registry.machine("host")(), registry, state_root)
    system = System(laboratory.planner(registry.manager(name)))
    system.start(lambda _: model_of(Work(server, [int(port) for port in ports], 0)))
    print(system.root, *(instance.pid for instance in system.values()), flush=True)
    signal.pause()


def killed(work: Work, name: str, state_root: str) -> End:
    """Deploy servers in another process, kill that, and wait."""
    argv = [sys.executable, "-c", DEPLOY, work.server, name, state_root, *map(str, work.ports)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        root, *pids = process.stdout.readline().split()
        poll = select.poll()
        running = {os.pidfd_open(int(pid)) for pid in pids}
        for descriptor in running:
            poll.register(descriptor, select.POLLIN)
        begin = time.perf_counter()
        process.kill()
        while running:
            if not (ended := poll.poll(LIMIT_SECONDS * 1000)):
                raise SystemExit(f"{len(running)} servers of {name} still run")
            for descriptor, _ in ended:
                poll.unregister(descriptor)
                os.close(descriptor)
                running.discard(descriptor)
        gone = time.perf_counter() - begin
    while os.path.exists(root):
        if time.perf_counter() - begin > LIMIT_SECONDS:
            raise SystemExit(f"{root} is left")
        time.sleep(POLL_SECONDS)
    return End(gone, time.perf_counter() - begin)


def floor(work: Work) -> float:
    """Start the servers as children, kill and reap them; return the seconds of the latter."""
    children = [subprocess.Popen(work.argv(port)) for port in work.ports]
    await_ports(work.ports)
    begin = time.perf_counter()
    for child in children:
        child.kill()
    for child in children:
        child.wait()
    return time.perf_counter() - begin


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100, help="servers per deployment")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--managers", type=lambda text: text.split(","), default=list(MANAGERS))
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("gone")
    results.figure("servers", str(options.count))
    results.figure("repetitions", str(options.repetitions))
    table = results.table("Test processes that are killed", *HEAD)
    with tempfile.TemporaryDirectory(prefix="np-") as directory:
        script = Path(directory, "server.py")
        script.write_text(PYTHON_SERVER)
        script.chmod(0o755)
        ports = free_ports(options.count)
        for kind, server in {"of Python": str(script), "of C": compile_server(directory)}.items():
            for name in able(Registry(), options.managers):
                work = Work(server, ports, 0)
                rounds = [(floor(work), killed(work, name, f"{directory}/root")) for _ in range(options.repetitions)]
                ratio = statistics.median(end.gone / least for least, end in rounds)
                columns = zip(*((least, end.gone, end.clean) for least, end in rounds), strict=True)
                medians = (f"{statistics.median(column) * 1000:.0f}" for column in columns)
                table.row(kind, name, *medians, f"x {ratio:.1f}")
                if server == str(script):
                    what = f"{name}, {options.count} servers gone after SIGKILL, to killing and reaping them"
                    results.bars.append(at_most(what, ratio, ALLOWED_RATIO))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
