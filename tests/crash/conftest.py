"""What the crash tests share: tests that need leases of their own run in a mount namespace with an empty ``/tmp``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pytest_nixproc.machines.process_table import command_line, is_alive, parents
from tests.crash.private_engine import PrivateEngine, private_engine
from tests.crash.storm import COUNTED, MARKS, MODEL, Session, session

INSIDE = "NIXPROC_TEST_ALONE"
SCRIPT = """
root=$1
shift
case $root in /tmp/*) mount --bind "$root" /mnt || exit ;; esac
mount -t tmpfs -o mode=1777 tmpfs /tmp || exit
# A checkout below /tmp is needed, and is moved to where it was.
case $root in /tmp/*) mkdir -p "$root" && mount --move /mnt "$root" || exit ;; esac
cd "$root" && exec "$@"
"""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "alone: needs leases that no other session on the machine uses")


def namespace(root: str) -> list[str]:
    """Return the command that runs others, in a checkout, in a mount namespace; empty where that is not allowed."""
    unshare = shutil.which("unshare")
    for options in ("-m", "-rm"):
        command = [unshare or "unshare", options, "--propagation", "private", "/bin/sh", "-c", SCRIPT, "sh", root]
        if unshare and subprocess.run([*command, "/bin/true"], capture_output=True, check=False).returncode == 0:
            return command
    return []


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked so once more, alone; its result is what counts, a skip included."""
    if pyfuncitem.get_closest_marker("alone") is None or INSIDE in os.environ:
        return None
    command = namespace(str(pyfuncitem.config.rootpath))
    if not command:
        pytest.skip("this user cannot make mount namespaces (unshare -m)")
    # Its time is over before ours, so that it can clean up and say where it was.
    options = ["-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist", "--color=no", "--timeout=90", pyfuncitem.nodeid]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TMPDIR"))}
    done = subprocess.run(
        [*command, sys.executable, "-m", "pytest", *options],
        env={**variables, INSIDE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0 and (skipped := re.search(r"^SKIPPED \[1\] \S+: (.+)", done.stdout, re.MULTILINE)):
        pytest.skip(skipped[1])
    if done.returncode != 0 or not re.search(r"^1 passed\b", done.stdout, re.MULTILINE):
        pytest.fail(f"alone:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return True


@pytest.fixture
def project() -> Iterator[Session]:
    """Return a session of pytest, not started, with the storm's model and no tests; all of it is cleaned up."""
    with session({"processes.py": MODEL, "counted.py": COUNTED, "conftest.py": MARKS, "pytest.ini": INI}) as one:
        yield one


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateEngine]:
    """Return a Docker engine, not started, that ``DOCKER_HOST`` names."""
    with private_engine() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        # Sessions that are started before the engine must not require one.
        monkeypatch.delenv("NIXPROC_REQUIRE", raising=False)
        yield engine


INI = "[pytest]\nnixproc_model = processes.py\nnixproc_stop_timeout = 2\naddopts = -p no:xdist\n"


@pytest.fixture(autouse=True)
def no_process_below_us() -> Iterator[None]:
    """Fail when a test leaves a process below this one."""
    before = set(below_us())
    yield
    left = {pid: command_line(pid) for pid in below_us() if pid not in before}
    assert not left, f"the test left processes: {left}"


def below_us() -> list[int]:
    """Return our living children."""
    return [pid for pid, parent in parents().items() if parent == os.getpid() and is_alive(pid)]
