"""The plugin on a host that systemd has booted, as a throwaway machine is: machines within it, and users' sessions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc.machines.api import Machine
from tests.machines.conftest import Boot
from tests.open_interpreter import USER, open_interpreter
from tests.open_tree import ROOT, make_environment, make_tree

SESSION: Final = f"/run/user/{USER}"
QUIET: Final = ("-q", "-p", "no:cacheprovider", "--color=no")


@pytest.fixture(scope="module")
def machine(boot: Boot) -> Iterator[Machine]:
    """Return a machine that stands for a host; it sees the tree only outside the directories that are its own."""
    if ROOT.parts[1] in ("tmp", "var", "run"):
        pytest.skip(f"a throwaway machine cannot see {ROOT}")
    with boot() as machine:
        machine.succeed(["systemctl", "start", "dbus"])
        yield machine


def run(machine: Machine, environment: dict[str, str], *argv: str) -> str:
    """Run a command on the machine with this environment alone; return what it prints."""
    words = [f"{name}={value}" for name, value in {"PATH": os.environ["PATH"], **environment}.items()]
    return machine.succeed(["env", "-i", "PYTHONDONTWRITEBYTECODE=1", *words, *argv], timeout=100)


@pytest.mark.long
def test_machines_within(machine: Machine) -> None:
    """Where systemd has booted the host, it gives a machine the control group that it needs."""
    options = (f"--rootdir={ROOT}", "--nixproc-machine=nspawn", "--nixproc-manager=supervisord,systemd")
    output = run(machine, {}, sys.executable, "-m", "pytest", *QUIET, *options, f"{ROOT}/examples/first")
    assert " passed" in output.splitlines()[-1]
    assert "skipped" not in output
    assert "nixproc" not in machine.succeed(["systemctl", "list-units", "--type=scope", "--plain"])


def test_session_of_a_user(machine: Machine) -> None:
    """A user who is logged in needs nothing: the session's own systemd runs the services, and keeps no trace."""
    interpreter = open_interpreter()
    if interpreter is None:
        pytest.skip("there is no interpreter that others can execute")
    place = Path(machine.spec.directory, "open")
    place.mkdir()
    make_tree(place)
    python = make_environment(place, interpreter)
    machine.succeed(["systemctl", "start", f"user@{USER}"])
    environment = {"HOME": str(place / "home"), "TMPDIR": str(place / "home"), "XDG_RUNTIME_DIR": SESSION}
    become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--")
    enter = ("sh", "-c", 'cd "$0" && exec "$@"', f"{place}/tree")
    pytest_ = (str(python), "-m", "pytest", *QUIET, "--nixproc-manager=systemd", "examples/first")
    output = run(machine, environment, *become, *enter, *pytest_)
    assert " passed" in output.splitlines()[-1]
    assert "skipped" not in output
    units = run(machine, environment, *become, "systemctl", "--user", "list-units", "--all", "nixproc*")
    assert "0 loaded units listed" in units
    assert machine.succeed(f"find {SESSION}/systemd -name 'nixproc*'") == ""
