"""Whether verbs hold what they say while many threads use one system.

Each of 16 threads owns an instance, which it starts, stops, restarts and kills, and reads the status, port, log and URL
of all others. After its own verb, the instance is as the verb says; what is read of another one is a state that its
owner's verbs can produce; and nothing takes longer than its limit. Then the same with exceptions that a signal handler
raises in the main thread, at random moments in its verbs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.results import Bar, Results, add_options

PLACES: Final = ("supervisord", "sysvinit", "systemd", "docker", "nspawn")
"""Managers on this machine, and supervisord on a throwaway one."""

TESTS: Final = '''
"""Made by a benchmark: what it finds is in the file that it writes."""

import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from pytest_nixproc import Instance, create_managed_process

SECONDS, THREADS, INTERRUPTED, REPORT = json.loads(os.environ["THREADS"])
READ_SECONDS, VERB_SECONDS = 20, 60

SERVER = """
import os, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
print("serving", flush=True)
signal.sigwait([signal.SIGTERM])
"""
LOG = re.compile(r"(serving\\n)*(serving)?")


def processes(free_port):
    def server(name):
        port = free_port(name)
        args = ["-I", "-S", "-c", SERVER, port]
        return Instance(create_managed_process(name=name, foreground_process=sys.executable, args=args), port=port)

    return {name: server(name) for name in (f"server{number}" for number in range(THREADS))}


class Interrupt(TimeoutError):
    """What the alarm raises: a kind of OSError, as tests have it."""


class Watcher:
    """One thread's view of the system, and what all have found."""

    def __init__(self, system):
        self.system = system
        self.problems = []
        self.done = Counter()
        self.slowest = Counter()
        self.logged = Counter()
        self.over = Event()

    def say(self, *words):
        self.problems.append(" ".join(map(str, words)))

    @contextmanager
    def within(self, what, seconds):
        begun = time.monotonic()
        yield
        took = time.monotonic() - begun
        self.done[what] += 1
        self.slowest[what] = max(self.slowest[what], took)
        if took > seconds:
            self.say(what, "took", f"{took:.1f} s")

    def read(self, reader, name):
        """Read one fact of an instance that another thread owns."""
        it = self.system[name]
        with self.within("read", READ_SECONDS):
            match random.choice(("status", "listening", "log", "url")):
                case "status":
                    status = it.status
                    if status.running and not status.pid:
                        self.say(name, "runs without a process:", status)
                case "listening":
                    if not it.listening <= {it.port}:
                        self.say(name, "listens elsewhere")
                case "log":
                    log = it.log
                    if not LOG.fullmatch(log):
                        self.say(name, "has logged", repr(log))
                    if len(log) < self.logged[reader, name]:
                        self.say(name, "has lost lines of its log")
                    self.logged[reader, name] = len(log)
                case "url":
                    if it.url != f"http://127.0.0.1:{it.port}":
                        self.say(name, "is at", it.url)

    def log_after(self, it, lines):
        """Return a log once it has more lines: a server listens before it says so, and is written a moment later."""
        end = time.monotonic() + READ_SECONDS
        while (log := it.log).count("serving") <= lines and time.monotonic() < end:
            time.sleep(0.01)
        return log

    def act(self, name, verb):
        """Apply a verb to an instance of one's own, and see whether it holds."""
        it = self.system[name]
        before, lines = it.pid, it.log.count("serving")
        with self.within(verb, VERB_SECONDS):
            getattr(it, verb)()
        is_up = verb in ("start", "restart")
        status, listening = it.status, it.listening
        log = self.log_after(it, lines) if is_up else it.log
        if status.running != is_up or listening != ({it.port} if is_up else set()):
            self.say(name, "after", verb, status, listening)
        if is_up and (status.pid in (None, before) or log.count("serving") != lines + 1):
            self.say(name, "after", verb, "was", before, "is", status.pid, "lines", lines, repr(log))
        return is_up

    def own(self, name):
        """Own an instance until the time is over, and leave it up."""
        try:
            self.log_after(self.system[name], 0)
            is_up, others = True, [other for other in self.system if other != name]
            while not self.over.is_set():
                is_up = self.act(name, random.choice(("stop", "restart", "kill")) if is_up else "start")
                for other in random.sample(others, min(8, len(others))):
                    self.read(name, other)
            if not is_up:
                self.act(name, "start")
        except BaseException as error:
            self.say(name, "raised", repr(error), str(error)[:2000])

    def settle(self, name):
        """Apply verbs after one that was interrupted: each has to hold, as if nothing had been."""
        it = self.system[name]
        if random.random() < 0.5:
            before = it.pid
            it.restart()
            if it.pid in (None, before) or it.listening != {it.port}:
                self.say(name, "after restart was", before, it.status, it.listening)
        # What the interrupted verb has started may say so only now: lines count from where it has ended.
        self.act(name, "stop")
        self.act(name, "start")

    def be_interrupted(self, name):
        """Use an instance while a signal handler raises at random; what follows an interrupt has to hold."""
        armed = False

        def interrupt(*_):
            if armed:
                raise Interrupt("as an alarm of a test raises it")

        before = signal.signal(signal.SIGALRM, interrupt)
        it, others = self.system[name], [other for other in self.system if other != name]
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                chosen = random.choice((it.restart, it.stop, it.start, lambda: self.read("main", random.choice(others)),
                                        lambda: self.system.machine.succeed("true"), lambda: self.system.statuses()))
                armed = True
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.choice((0.0005, 0.005, 0.05, 0.5)) * random.random())
                    with self.within("interrupted", VERB_SECONDS):
                        chosen()
                    armed = False
                except Interrupt:
                    self.done["interrupts"] += 1
                finally:
                    armed = False
                    signal.setitimer(signal.ITIMER_REAL, 0)
                if self.system.machine.succeed("echo still") != "still\\n":
                    self.say("the machine answers wrongly after an interrupt")
                self.settle(name)
        except BaseException as error:
            self.say(name, "raised after an interrupt", repr(error), str(error)[:2000])
        finally:
            signal.signal(signal.SIGALRM, before)


def test_threads(nixproc_deploy):
    with nixproc_deploy(processes) as system:
        watcher = Watcher(system)
        names = list(system)
        with ThreadPoolExecutor(THREADS) as pool:
            owners = [pool.submit(watcher.own, name) for name in (names[1:] if INTERRUPTED else names)]
            try:
                if INTERRUPTED:
                    watcher.be_interrupted(names[0])
                else:
                    watcher.over.wait(SECONDS)
            finally:
                watcher.over.set()
        for owner in owners:
            owner.result()
        with open(REPORT, "w") as file:
            json.dump([watcher.done, watcher.slowest, watcher.problems], file)
        if INTERRUPTED and not system[names[0]].is_running:
            system[names[0]].start()
'''


@dataclass(frozen=True)
class Round:
    """One round of threads on a system."""

    place: str
    seconds: float
    threads: int
    is_interrupted: bool

    @property
    def options(self) -> list[str]:
        """The options of pytest that choose the place."""
        is_throwaway = self.place == "nspawn"
        manager = f"--nixproc-manager={'supervisord' if is_throwaway else self.place}"
        return [manager, f"--nixproc-require={self.place}", *(["--nixproc-machine=nspawn"] if is_throwaway else [])]

    def run(self) -> tuple[dict[str, int], dict[str, float], list[str]]:
        """Return how often each thing was done, how long the slowest took, and the problems."""
        with tempfile.TemporaryDirectory(prefix="threads-", dir="/var/tmp") as place:
            Path(place, "test_threads.py").write_text(TESTS)
            report = Path(place, "report.json")
            argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={place}", place]
            told = json.dumps([self.seconds, self.threads, self.is_interrupted, str(report)])
            done = subprocess.run(
                [*argv, *self.options, "--nixproc-start-timeout=60", "--nixproc-stop-timeout=30", "-W", "error"],
                cwd=place,
                env={**os.environ, "THREADS": told},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            found: list[Any] = json.loads(report.read_text()) if report.exists() else [{}, {}, []]
            if done.returncode:
                found[2].append(f"the test has failed:\n{done.stdout}")
            return found[0], found[1], found[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the threads in each place, without interrupts and with them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--places", default=",".join(PLACES), help="managers, and nspawn, separated by commas")
    parser.add_argument("--seconds", type=float, default=60, help="how long each round takes")
    parser.add_argument("--threads", type=int, default=16, help="how many threads and instances")
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("threads")
    table = results.table("Threads", "place", "interrupts", "verbs", "reads", "slowest verb", "slowest read")
    for place in options.places.split(","):
        for is_interrupted in (False, True):
            done, slowest, problems = Round(place, options.seconds, options.threads, is_interrupted).run()
            print(*problems, sep="\n", file=sys.stderr)
            verbs = [name for name in done if name in ("start", "stop", "restart", "kill")]
            longest = max((slowest[name] for name in verbs), default=0.0)
            count = sum(done[name] for name in verbs)
            interrupts = done.get("interrupts", 0)
            read = slowest.get("read", 0.0)
            table.row(place, str(interrupts), str(count), str(done.get("read", 0)), f"{longest:.1f} s", f"{read:.1f} s")
            what = f"{place}{', interrupted' if is_interrupted else ''}: every state is right"
            hit = count > 0 and (interrupts > 0 or not is_interrupted)
            results.bars.append(Bar(what, f"{len(problems)} problems", hit and not problems))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
