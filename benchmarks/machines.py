"""What throwaway machines cost: to boot one and end it, against systemd-nspawn alone; and to test an example on one.

The bare container boots the same systemd from the same directories to the same target, and tells by a file that it is
there; it is killed then. Ours include the guardian, the lease, the agent and its first answer, and the removal of all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.results import Results, Table, add_options, at_most
from pytest_nixproc._deployment.machines import boot_machine
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc.machines.nspawn import Nspawn
from pytest_nixproc.machines.nspawn.boot import directories_with_software
from pytest_nixproc.machines.nspawn.control_groups import control_groups, remove_groups, scope
from pytest_nixproc.machines.process_table import descendants, is_alive, parents

ALLOWED_SECONDS: Final = 5.0
EXAMPLE: Final = Path(__file__).parents[1] / "examples" / "webapps" / "processes.py"
MANAGERS: Final = ("supervisord", "sysvinit", "systemd")

UNIT: Final = """
[Unit]
Requires=basic.target
After=basic.target
[Service]
ExecStart=/bin/touch /run/there/up
"""

BARE: Final = """
while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift
mount --make-rprivate /
mount -t tmpfs nixproc /run
mkdir -p /run/systemd/system
while [ "$1" != -- ]; do mkdir -p "/run/upper$1"; shift; done; shift
exec "$@"
"""


def bare() -> tuple[float, float]:
    """Boot a container with nothing of ours, and kill it; return the seconds until it is up, and until it is gone."""
    overlaid = list(directories_with_software())
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        Path(f"{directory}/unit").write_text(UNIT)
        groups = list(control_groups(f"nixproc-bench-{os.path.basename(directory)}"))
        words = ["systemd-nspawn", "--quiet", "--directory=/", "--volatile=yes", "--register=no", "--keep-unit"]
        words += ["--console=read-only", f"--machine=bench{os.getpid()}", f"--bind={directory}:/run/there"]
        words += [f"--overlay={path}:/run/upper{path}:{path}" for path in overlaid]
        words += [f"--bind-ro={directory}/unit:/run/systemd/system/up.service", "--boot", "--"]
        words += ["systemd.unit=basic.target", "systemd.wants=up.service", "systemd.mask=systemd-firstboot.service"]
        argv = [*scope(), "unshare", "--mount", "sh", "-ec", BARE, "sh", *groups, "--", *overlaid, "--", *words]
        begin = time.perf_counter()
        for group in groups:
            os.mkdir(group)
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        quiet = subprocess.DEVNULL
        with subprocess.Popen(argv, env=environment, stdin=quiet, stdout=quiet, stderr=quiet) as process:
            while not os.path.exists(f"{directory}/up"):
                assert process.poll() is None, "the bare container does not boot"
                time.sleep(0.001)
            up = time.perf_counter()
            below = descendants([process.pid], parents())
            for pid in (*below, process.pid):
                # The end of one may be the end of others.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        while any(map(is_alive, below)) or remove_groups(groups):
            time.sleep(0.001)
        return up - begin, time.perf_counter() - up


def ours() -> tuple[float, float]:
    """Boot a machine, ask it for something, and end it; return the same seconds."""
    begin = time.perf_counter()
    with boot_machine(Nspawn, Leases(), Settings()) as machine:
        machine.files.exists("/")
        up = time.perf_counter()
    return up - begin, time.perf_counter() - up


def show(table: Table, name: str, runs: Sequence[tuple[float, float]], floor: Sequence[tuple[float, float]]) -> None:
    """Add one row: medians, extremes, and the ratio to the bare container."""
    boots, ends = zip(*runs, strict=True)
    ratio = statistics.median(boots) / statistics.median(boot for boot, _ in floor)
    boot = f"{statistics.median(boots):.3f} ({min(boots):.3f}..{max(boots):.3f})"
    table.row(name, boot, f"{statistics.median(ends):.3f}", f"x {ratio:.2f}")


def example(table: Table, manager: str, repetitions: int) -> float:
    """Measure the items of the basic example on a machine of their own, with pytest; return the median."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE)]
    argv += ["--nixproc-machine=nspawn", f"--nixproc-manager={manager}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIXPROC_")}
    seconds = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        seconds.append(time.perf_counter() - begin)
        assert done.returncode == 0, done.stdout
    median = statistics.median(seconds)
    outcomes = done.stdout.splitlines()[-1].partition(" in ")[0]
    table.row(manager, f"{median:.2f} ({min(seconds):.2f}..{max(seconds):.2f})", outcomes)
    return median


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--boots", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3, help="runs of the example, for each manager")
    add_options(parser)
    options = parser.parse_args(argv)
    if reason := Nspawn.unavailable_reason():
        print(reason, file=sys.stderr)
        return 1
    if not shutil.which("nginx"):
        print("nginx is not installed: the example cannot be run", file=sys.stderr)
        return 1
    results = Results("machines")
    results.figure("boots", str(options.boots))
    results.figure("runs of the example for each manager", str(options.repetitions))
    pairs = [(bare(), ours()) for _ in range(options.boots)]
    table = results.table("Boots", "machine", "boot, seconds", "end, seconds", "boot to bare")
    floor = [one for one, _ in pairs]
    show(table, "systemd-nspawn alone", floor, floor)
    show(table, "ours", [two for _, two in pairs], floor)
    table = results.table("The basic example", "manager", "seconds, all of pytest included", "outcomes")
    for manager in MANAGERS:
        median = example(table, manager, options.repetitions)
        results.bars.append(at_most(f"the example on {manager}", median, ALLOWED_SECONDS, " s"))
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
