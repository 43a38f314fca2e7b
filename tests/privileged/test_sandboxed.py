"""Everything that creates accounts, in a sandbox that has a copy of the machine's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc.machines.nspawn import Nspawn
from tests.privileged.conftest import Sandbox

REQUIRED = frozenset(os.environ.get("NIXPROC_REQUIRE", "").split(","))
USUAL: Final = "supervisord,sysvinit"
"""One that switches users itself, and one whose scripts do; the others are tried at length."""

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("chosen", [USUAL, pytest.param("", marks=pytest.mark.long, id="all")])
def test_managers_conform(sandbox: Sandbox, chosen: str) -> None:
    """Every manager that can run here switches users as it should."""
    names = chosen.replace(",", " or ")
    assert " passed" in sandbox("-q", "tests/privileged/inside/test_conformance.py", "-k", names).splitlines()[-1]


def test_secrets(sandbox: Sandbox) -> None:
    """No manager lets others read what a process is told."""
    assert " passed" in sandbox("-q", "tests/privileged/inside/test_secrets.py").splitlines()[-1]


@pytest.mark.long
def test_launchd_conforms_on_a_stand_in(sandbox: Sandbox) -> None:
    """So does the one that cannot run here, as far as its own launchd can tell."""
    assert " passed" in sandbox("-q", "tests/privileged/inside/test_launchd.py").splitlines()[-1]


def test_accounts(sandbox: Sandbox) -> None:
    """Accounts are made and removed by the plugin too, and when it is killed."""
    assert " passed" in sandbox("-q", "tests/privileged/inside/test_accounts.py").splitlines()[-1]


@pytest.mark.parametrize("chosen", [USUAL, pytest.param("all", marks=pytest.mark.long)])
def test_webapps_run_in_both_profiles(sandbox: Sandbox, chosen: str) -> None:
    """The example passes unchanged where its instances run as users of their own; ids say which profile it was."""
    options = ("--nixproc-profile=all", f"--nixproc-manager={chosen}", "-v", "-rs")
    output = sandbox(*options, "examples/webapps/test_webapps.py")
    for profile in ("unprivileged", "privileged"):
        assert f"test_proxy[supervisord-{profile}] PASSED" in output
        assert f"test_proxy[sysvinit-{profile}] PASSED" in output


@pytest.mark.long
def test_webapps_run_on_a_throwaway_machine(sandbox: Sandbox) -> None:
    """On a machine that is thrown away, the profile privileged needs no permission."""
    if reason := Nspawn.unavailable_reason():
        (pytest.fail if "nspawn" in REQUIRED else pytest.skip)(f"machine nspawn cannot run here: {reason}")
    managers = "supervisord,sysvinit,systemd"
    options = ("--nixproc-profile=privileged", "--nixproc-machine=nspawn", f"--nixproc-manager={managers}")
    output = sandbox(
        "-q", *options, f"--nixproc-require={managers}", "-k", "proxy or upgrade", "examples/webapps", at=Path("/mnt")
    )
    assert " passed" in output.splitlines()[-1]


@pytest.mark.long
def test_workers_share_accounts(sandbox: Sandbox) -> None:
    """Two sessions at once that want the same accounts are not in each other's way."""
    pytest.importorskip("xdist")
    options = ("--nixproc-profile=privileged", "--nixproc-manager=sysvinit", "-n", "2", "--dist", "each")
    assert " passed" in sandbox("-q", *options, "-k", "proxy or upgrade", "examples/webapps").splitlines()[-1]
