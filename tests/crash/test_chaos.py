"""One scenario of each kind of chaos; `.ci/night chaos` has all of them, and every byte of the records."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.results import Results
from tests.crash.chaos_scenarios import KINDS, SCENARIOS
from tests.crash.chaos_scene import named, reveals_us

CHAOS = Path(__file__).parent / "chaos.py"
MANAGERS = "supervisord,sysvinit,systemd,disnix"
REQUIRED = "sandbox" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(",")


def no_namespaces_reason() -> str:
    """Say why there can be no namespaces here, if so."""
    if os.geteuid() != 0:
        return "only root can make namespaces"
    program = shutil.which("unshare")
    if program is None:
        return "unshare is not installed"
    argv = [program, "--pid", "--mount", "--ipc", "--net", "--fork", "--mount-proc", sys.executable, "-c", ""]
    trial = subprocess.run(argv, capture_output=True, text=True, check=False)
    return trial.stderr.strip()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_chaos_of_each_kind_ends_clearly(tmp_path: Path) -> None:
    """Whatever is in the way of a session, it ends, says so in a line with what to do, and leaves nothing else."""
    if reason := no_namespaces_reason():
        (pytest.fail if REQUIRED else pytest.skip)(reason)
    seed = os.environ.get("NIXPROC_TEST_SEED", "11")
    words = ("--short", f"--managers={MANAGERS}", f"--seed={seed}", f"--results={tmp_path}", "--check")
    done = subprocess.run([sys.executable, CHAOS, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    results = Results.read(tmp_path / "chaos.json")
    assert results.figures["scenarios"] == str(len(KINDS))


def test_scenarios_are_many_and_distinct() -> None:
    """There are at least 60 scenarios, of every kind some, and no two have one name."""
    assert len(SCENARIOS) >= 60
    assert [name for name, number in Counter(scenario.name for scenario in SCENARIOS).items() if number > 1] == []
    assert min(Counter(scenario.kind for scenario in SCENARIOS).values()) > 5


@pytest.mark.parametrize(
    ("said", "reveals"),
    [
        ('  File "/x/pytest_nixproc/_cli/reap.py", line 3, in run', True),
        ("___ test_it ___\n/x/pytest_nixproc/b.py:9: in write\n/x/pytest_nixproc/a.py:7: KeyError", True),
        ("____ test_it ____\ntest_0.py:8: \n/x/pytest_nixproc/machines/api.py:7: MachineError", False),
        ("____ test_it ____\n/x/pytest_nixproc/a.py:7: OSError\ntest_0.py:8: AssertionError", False),
        ('  File "/x/pytest_nixproc/testing/programs/probe.py", line 3, in run', False),
        ("cannot deploy in /x: No space left on device", False),
    ],
)
def test_failures_of_our_own_code_are_seen(said: str, reveals: bool) -> None:  # noqa: FBT001 - a column of the table
    """A frame of ours in a traceback is seen, and what only our code can have raised; an error of ours is none."""
    assert bool(reveals_us(said)) == reveals


@pytest.mark.parametrize(
    ("kind", "trace", "said", "is_named"),
    [
        ("processes", "17 (below 1): sleep", "process 17 runs on: kill 17", True),
        ("processes", "17 (below 1): sleep", "process 117 runs on", False),
        ("ports", "2000 by 17", "port 2000 is held", True),
        ("directories", "0a1b2c3d", "/tmp/s/0a1b2c3d cannot be removed", True),
        ("leases", "/tmp/leases/0a1b2c3d.json", "/tmp/s/0a1b2c3d cannot be removed", True),
        ("files", "/tmp/nixproc-0", "nothing is left", False),
    ],
)
def test_what_is_left_has_to_be_named(kind: str, trace: str, said: str, is_named: bool) -> None:  # noqa: FBT001 - as above
    """Something that is left is accepted only if its pid, port, path or deployment stands in the output."""
    assert named(kind, trace, said) == is_named
