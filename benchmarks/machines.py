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

from pytest_nixproc.deployment.booting import booted
from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.planner import Settings
from pytest_nixproc.machines.nspawn import Nspawn, control_groups, directories_with_software, remove_groups, scope
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
    with booted(Nspawn, Leases(), Settings()) as machine:
        machine.exists("/")
        up = time.perf_counter()
    return up - begin, time.perf_counter() - up


def show(name: str, runs: Sequence[tuple[float, float]], floor: Sequence[tuple[float, float]]) -> None:
    """Print one row: medians, extremes, and the ratio to the bare container."""
    boots, ends = zip(*runs, strict=True)
    ratio = statistics.median(boots) / statistics.median(boot for boot, _ in floor)
    cells = f"{statistics.median(boots):.3f} ({min(boots):.3f}..{max(boots):.3f}) | {statistics.median(ends):.3f}"
    print(f"| {name} | {cells} | x {ratio:.2f} |", flush=True)


def example(manager: str, repetitions: int) -> float:
    """Print how long the items of the basic example take on a machine of their own, with pytest; return the median."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE)]
    argv += ["--nixproc-machine=nspawn", f"--nixproc-manager={manager}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIXPROC_")}
    seconds = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        seconds.append(time.perf_counter() - begin)
        assert done.returncode == 0, done.stdout
    closing = done.stdout.splitlines()[-1]
    median = statistics.median(seconds)
    print(f"| {manager} | {median:.2f} ({min(seconds):.2f}..{max(seconds):.2f}) | {closing} |", flush=True)
    return median


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and with ``--check`` return 1 when the bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--boots", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3, help="runs of the example, for each manager")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    if obstacle := Nspawn.obstacle():
        print(obstacle, file=sys.stderr)
        return 1
    pairs = [(bare(), ours()) for _ in range(options.boots)]
    print("| machine | boot, seconds | end, seconds | boot to bare |\n| --- | --- | --- | --- |")
    floor = [one for one, _ in pairs]
    show("systemd-nspawn alone", floor, floor)
    show("ours", [two for _, two in pairs], floor)
    if not shutil.which("nginx"):
        print("nginx is not installed: the example cannot be run", file=sys.stderr)
        return 1
    print("\n| manager | example, seconds, all of pytest included | |\n| --- | --- | --- |")
    slowest = max(example(manager, options.repetitions) for manager in MANAGERS)
    holds = slowest <= ALLOWED_SECONDS
    print(f"example: {slowest:.2f} s, at most {ALLOWED_SECONDS:g} s: {'holds' if holds else 'does NOT hold'}")
    return 0 if holds or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
