"""What needs a host whose accounts may be changed; ``test_sandboxed.py`` provides one."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc._deployment.accounts import LEDGER
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._plugin.matrix import no_accounts_reason
from pytest_nixproc.machines.accounts import GetentAccounts
from pytest_nixproc.machines.host import Host
from tests.privileged.conftest import DATABASE

SECONDS: Final = 20.0

MODEL: Final = """
import sys
from pytest_nixproc import Instance, create_managed_process

def processes(state, home, force_disable_user_change):
    pkg = create_managed_process(
        name="idle", foreground_process=sys.executable, args=["-I", "-S", "-c", "import signal; signal.pause()"],
        user="npi-idle",
        credentials={
            "groups": {"npi-log": {}},
            "users": {"npi-idle": {"extra_groups": ["npi-log"], "home_dir": home, "create_home_dir": True}},
        },
    )
    assert not force_disable_user_change
    return {"idle": Instance(pkg)}
"""

TEST: Final = """
import time
from pathlib import Path

def test_it(nixproc_system, nixproc_profile):
    assert nixproc_profile == "privileged"
    Path("up").write_text(nixproc_system.root)
    time.sleep({seconds})
"""


@pytest.fixture(autouse=True)
def disposable_host(pytestconfig: pytest.Config) -> Iterator[None]:
    """Skip where accounts may not be changed; fail when a test has left any."""
    if reason := no_accounts_reason(pytestconfig, Host):
        pytest.skip(reason)
    before = accounts()
    yield
    assert accounts() == before


def accounts() -> list[bytes]:
    """Return the host's files of accounts."""
    return [Path("/etc", name).read_bytes() for name in DATABASE]


def exist() -> list[str]:
    """Return which of the model's accounts there are."""
    users = [entry.pw_name for entry in pwd.getpwall() if entry.pw_name.startswith("npi-")]
    return users + [entry.gr_name for entry in grp.getgrall() if entry.gr_name.startswith("npi-")]


def shell(text: str) -> None:
    """Run shell commands that have to succeed."""
    subprocess.run(["/bin/sh", "-c", text], check=True)


def wait(condition: Callable[[], bool]) -> bool:
    """Wait until something holds, for some time; tell whether it does."""
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a directory with a model and a test that waits until it is killed."""
    (tmp_path / "processes.py").write_text(MODEL)
    (tmp_path / "test_it.py").write_text(TEST.format(seconds=600))
    (tmp_path / "pytest.ini").write_text("[pytest]\nnixproc_model = processes.py\naddopts = -p no:xdist\n")
    return tmp_path


def command(project: Path, *options: str) -> list[str]:
    """Return a run of pytest in the profile privileged."""
    home = project / "outside" / "home"
    own = ["-p", "no:cacheprovider", "--nixproc-profile=privileged", f"--nixproc-param=home={home}"]
    return [sys.executable, "-m", "pytest", *own, *options]


@contextmanager
def running(project: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run pytest until its system is up; hand out its process, and the directory of the deployment."""
    with subprocess.Popen(command(project, *options), cwd=project, stdout=subprocess.PIPE) as process:
        try:
            assert wait(lambda: (project / "up").exists() or process.poll() is not None)
            assert process.poll() is None, process.communicate()[0].decode()
            assert exist() == ["npi-idle", "npi-log", "npi-idle"]
            assert (project / "outside" / "home").owner() == "npi-idle"
            yield process, (project / "up").read_text()
        finally:
            process.kill()


@pytest.mark.parametrize("manager", ["supervisord", "sysvinit"])
def test_killed_session_leaves_no_accounts(project: Path, manager: str) -> None:
    """When pytest is killed, the guardian removes processes, users, groups and homes, in this order."""
    with running(project, f"--nixproc-manager={manager}") as (process, root):
        process.kill()
        assert wait(lambda: not os.path.exists(root) and not exist() and not Leases().all())
    assert not (project / "outside").exists()
    assert not os.path.exists(LEDGER)


def test_reap_removes_accounts(project: Path) -> None:
    """When the guardian is killed too, ``reap`` removes them; a dry run does not."""
    with running(project) as (process, root):
        claim = Leases().lease_of(root)
        assert claim is not None
        assert claim.guardian is not None
        os.kill(claim.guardian.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    reap = [sys.executable, "-m", "pytest_nixproc", "reap"]
    subprocess.run([*reap, "--dry-run"], check=True, stdout=subprocess.DEVNULL)
    assert exist() == ["npi-idle", "npi-log", "npi-idle"]
    subprocess.run(reap, check=True, stdout=subprocess.DEVNULL)
    assert (exist(), (project / "outside").exists(), os.path.exists(LEDGER)) == ([], False, False)


def test_kept_system_keeps_its_accounts(project: Path) -> None:
    """A kept system has its accounts until it is stopped."""
    (project / "test_it.py").write_text(TEST.format(seconds=0))
    subprocess.run(command(project, "-q", "--nixproc-keep=always"), cwd=project, check=True, stdout=subprocess.DEVNULL)
    assert exist() == ["npi-idle", "npi-log", "npi-idle"]
    stop = [sys.executable, "-m", "pytest_nixproc", "stop", (project / "up").read_text()]
    subprocess.run(stop, check=True, stdout=subprocess.DEVNULL)
    assert (exist(), (project / "outside").exists()) == ([], False)


def test_accounts_of_a_crash_of_the_machine(project: Path) -> None:
    """Accounts whose deployment is gone without a trace, as after a power cut, go with the next deployment's."""
    shell("groupadd --system npi-lost")
    Path(LEDGER).write_text('[["group", "npi-lost", [], ["/nowhere/at/all"]]]')
    (project / "test_it.py").write_text(TEST.format(seconds=0))
    subprocess.run(command(project, "-q"), cwd=project, check=True, stdout=subprocess.DEVNULL)
    assert (exist(), os.path.exists(LEDGER)) == ([], False)


def test_ledger_that_cannot_be_read(project: Path) -> None:
    """A ledger that is damaged fails the deployment with its name, before anything is made, and stays."""
    Path(LEDGER).write_text("[[")
    try:
        run = subprocess.run(command(project, "-q"), cwd=project, check=False, capture_output=True, text=True)
        assert f"the ledger of accounts {LEDGER} cannot be read" in run.stdout
        assert exist() == []
    finally:
        os.unlink(LEDGER)


def test_host_and_getent_agree() -> None:
    """The C library, which the host asks, and getent, which other machines have, say the same."""
    shell("groupadd npi-log && useradd --no-create-home --gid npi-log --groups adm,mail npi-idle")
    host = Host()
    try:
        users, groups = ["root", "npi-idle", "npi-missing", "0"], ["npi-log", "npi-missing", "tty"]
        found = host.accounts.named(users, groups)
        assert found.users.keys() == {"root", "npi-idle"}
        assert found.users["npi-idle"].group == "npi-log"
        assert set(found.members["npi-idle"]) == {"adm", "mail"}
        assert found.groups.keys() == {"root", "npi-log", "tty", "adm", "mail"}
        asked = GetentAccounts(host.processes, host.files, host.clock, lambda: host.facts)
        assert asked.named(users, groups) == found
        assert asked.named([], []) == host.accounts.named([])
    finally:
        host.lifecycle.close()
        shell("userdel npi-idle && groupdel npi-log")
