"""What the plugin costs those who do not use it: a session of one trivial test, with the plugin and without it.

The sessions run in interleaved pairs, alternately one and the other first; the median of the pairs' differences
counts. Other third-party plugins are off: what they import anyway would hide what this one imports.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from benchmarks.results import Results, add_options, at_most

PLUGIN: Final = "nixproc"
BAR_MILLISECONDS: Final = 10.0
FILE: Final = "test_nothing.py"
TEST: Final = "def test_nothing():\n    pass\n"


@dataclass(frozen=True)
class Session:
    """Milliseconds that one pytest session took."""

    wall: float
    cpu: float


def command(*, loaded: bool) -> list[str]:
    """Return the command of a session with or without the plugin."""
    return [*session(loaded=loaded), FILE]


def session(*, loaded: bool) -> list[str]:
    """Return the words of a session without other third-party plugins, and with or without ours."""
    others = {point.name for point in entry_points(group="pytest11")} - {PLUGIN}
    off = sorted(others) if loaded else sorted({*others, PLUGIN})
    without = (word for name in off for word in ("-p", f"no:{name}"))
    return ["-m", "pytest", "-q", "-p", "no:cacheprovider", *without]


def run(directory: str, *, loaded: bool) -> Session:
    """Run one session."""
    argv = [sys.executable, *command(loaded=loaded)]
    begin, before = time.perf_counter(), cpu_of_children()
    subprocess.run(argv, cwd=directory, env=environment(directory), check=True, stdout=subprocess.DEVNULL)
    return Session((time.perf_counter() - begin) * 1000, (cpu_of_children() - before) * 1000)


def environment(directory: str) -> dict[str, str]:
    """Return an environment in which modules are compiled once, as pip does when it installs them."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{directory}/compiled"}


def cpu_of_children() -> float:
    """Return the seconds of processor time of all sessions so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def pair(directory: str, number: int) -> tuple[Session, Session]:
    """Run a session without the plugin and one with it; every second time the other way round."""
    if number % 2:
        loaded = run(directory, loaded=True)
        return run(directory, loaded=False), loaded
    return run(directory, loaded=False), run(directory, loaded=True)


def imports(directory: str, *, loaded: bool) -> dict[str, float]:
    """Return the modules that a session imports, with the milliseconds that each takes by itself."""
    argv = [sys.executable, "-X", "importtime", *command(loaded=loaded)]
    ended = subprocess.run(argv, cwd=directory, env=environment(directory), check=True, capture_output=True, text=True)
    lines = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", ended.stderr, re.MULTILINE)
    return {name: int(microseconds) / 1000 for microseconds, name in lines}


def explain(directory: str) -> None:
    """Print the modules that only a session with the plugin imports."""
    without, with_plugin = imports(directory, loaded=False), imports(directory, loaded=True)
    print("\nimported because of the plugin, ms:")
    for name in (name for name in with_plugin if name not in without):
        print(f"  {with_plugin[name]:6.2f}  {name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=25, help="pairs of sessions")
    parser.add_argument("--explain", action="store_true", help="list what the plugin imports")
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("plugin_overhead")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, FILE).write_text(TEST)
        pair(directory, 0)  # compiles everything; the pairs that count find it done
        pairs = [pair(directory, number) for number in range(options.repetitions)]
        if options.explain:
            explain(directory)
    wall = statistics.median(loaded.wall - bare.wall for bare, loaded in pairs)
    cpu = statistics.median(loaded.cpu - bare.cpu for bare, loaded in pairs)
    results.figure("pairs of sessions", str(len(pairs)))
    results.figure("bare session", f"{statistics.median(bare.wall for bare, _ in pairs):.0f} ms")
    results.figure("with the unused plugin", f"{wall:+.1f} ms, of processor time {cpu:+.1f} ms")
    results.bars.append(at_most("the unused plugin", wall, BAR_MILLISECONDS, " ms"))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
