"""A sandbox for everything that creates accounts: a mount namespace with a copy of ``/etc`` for its own.

What runs in it has root's rights, and its own ``/home`` and ``/tmp``, so its own leases too. The machine's accounts are
not touched; the processes, ports and everything else are the machine's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.open_interpreter import VERSION, open_interpreter

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("pytest_nixproc", "tests", "examples", "docs", "conftest.py", "pyproject.toml")
EXAMPLE: Final = "examples/third-party-manager"
"""A manager of another distribution, which is tried there, too."""

DATABASE: Final = ("passwd", "group", "shadow", "gshadow")

SCRIPT: Final = """
place=$1
at=$2
shift 2
cd "$place" &&
    mount --bind "$place" /mnt &&
    mount -t tmpfs -o mode=755 tmpfs private &&
    cp -a /etc private/etc && mkdir private/home &&
    mount --bind private/etc /etc && mount --bind private/home /home && mount -t tmpfs -o mode=1777 tmpfs /tmp ||
    exit 99
cp -a private/etc private/before
(cd "$at/tree" && exec "$@")
status=$?
for name in passwd group shadow gshadow nixproc-accounts.json; do
    if ! [ -e private/before/$name ] && ! [ -e private/etc/$name ]; then continue; fi
    cmp private/before/$name private/etc/$name || exit 98
done
[ -z "$(ls -A private/home)" ] || { echo 'something is left in /home'; exit 98; }
exit $status
"""
"""Runs a command; what it leaves of accounts is an error."""

Sandbox = Callable[..., str]


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """Return a directory that everybody can pass through, with a copy of the tree, and an interpreter for everybody.

    It is not below ``/tmp``, which the sandbox has for its own, so that a container engine sees it too.
    """
    reason = unavailable_reason()
    if reason and "sandbox" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(","):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="np", dir="/var/tmp") as directory:
        place = Path(directory)
        for name in PARTS:
            copy(ROOT / name, place / "tree" / name)
        make_environment(place)
        for name in ("private", "tmp"):
            (place / name).mkdir()
        subprocess.run([tool("chmod"), "-R", "a+rX", place], check=True)
        yield place


def unavailable_reason() -> str:
    """Return why there can be no sandbox here, if so."""
    if os.geteuid() != 0:
        return "only root can create accounts"
    missing = [name for name in ("unshare", "useradd", "setpriv", "getent") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    trial = subprocess.run([tool("unshare"), "--mount", tool("true")], capture_output=True, text=True, check=False)
    if trial.returncode != 0:
        return f"there are no mount namespaces: {trial.stderr.strip()}"
    return "" if open_interpreter() else f"there is no Python {VERSION} that others can execute, with the module venv"


def tool(name: str) -> str:
    """Return the path of a tool that is known to be there."""
    return shutil.which(name) or name


def copy(source: Path, target: Path) -> None:
    """Copy a file or a directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def make_environment(place: Path) -> None:
    """Make an environment of an interpreter that everybody can execute; only root's processes need packages."""
    subprocess.run([open_interpreter() or "", "-m", "venv", "--without-pip", place / "venv"], check=True, env={})
    packages = place / "venv" / "lib" / f"python{VERSION}" / "site-packages"
    ours = [path for path in sys.path if path.endswith("-packages")]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in ours]
    (packages / "ours.pth").write_text("".join(lines))
    install(place / "venv" / "bin" / "python", place / "tree" / EXAMPLE)


def install(interpreter: Path, distribution: Path) -> None:
    """Install a distribution, which has to be built by what is there, and needs nothing that is not."""
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    subprocess.run([interpreter, "-m", "pip", "install", *options, distribution], check=True)


@contextmanager
def alone() -> Iterator[None]:
    """Let the other workers of a run wait: sandboxes do not see each other's leases, and would have the same ports."""
    with open(__file__, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def sandbox(place: Path) -> Sandbox:
    """Return a function that runs pytest in the sandbox, where it has to pass, and returns what it printed.

    The copy of the tree is run where it is; or ``at`` /mnt, where throwaway machines see it too: /var is their own.
    """
    keep = ("PATH", "DOCKER_HOST", "DOCKER_CONTEXT", "HOME", "LC_ALL")
    ours = ("NIXPROC_REQUIRE", "NIXPROC_TEST_REQUIRE", "NIXPROC_CONFORMANCE_RESULTS")

    def run(*arguments: str, at: Path = place) -> str:
        environment = {name: os.environ[name] for name in (*keep, *ours) if name in os.environ}
        environment |= {"TMPDIR": str(place / "tmp"), "PYTHONDONTWRITEBYTECODE": "1", "NIXPROC_DISPOSABLE_HOST": "1"}
        environment["PYTHONPATH"] = f"{at}/tree"
        before = [Path("/etc", name).read_bytes() for name in DATABASE]
        words = ("--mount", "--propagation", "private", "/bin/sh", "-c", SCRIPT, "sh")
        enter = [tool("unshare"), *words, str(place), str(at)]
        pytest_ = [f"{at}/venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider", "--color=no"]
        with alone():
            done = subprocess.run(
                [*enter, *pytest_, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        assert [Path("/etc", name).read_bytes() for name in DATABASE] == before, "the machine's accounts are changed"
        assert done.returncode == 0, done.stdout
        left = [name for name in os.listdir(place / "tmp") if not name.startswith("pytest-of-")]
        assert left == [], done.stdout
        return done.stdout

    return run
