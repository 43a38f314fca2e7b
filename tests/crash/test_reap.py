"""The guardian is killed first, and pytest then: ``reap`` and the next run clean up, and touch nothing foreign."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from urllib.request import urlopen

import pytest

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc.machines.process_table import command_line, environment_of, is_alive, parents, start_time
from tests.crash.storm import LIMIT_SECONDS, RUN_SECONDS, Session, wait

MANAGERS = ("supervisord", "sysvinit")

WAITING = """
import time
from conftest import mark

def test_it(nixproc_system):
    mark("deployed")
    time.sleep(600)
"""

DIES_ON_THE_WAY = """
import importlib
import os
import signal


def test_it(nixproc_system):
    module, _, path = os.environ["STEP"].partition(":")
    name, attribute = path.split(".")
    # Not by monkeypatch, which would put it back before the teardown.
    setattr(getattr(importlib.import_module(module), name), attribute, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def pytest_nixproc(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run our command line."""
    argv = [sys.executable, "-m", "pytest_nixproc", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def deployed(one: Session, manager: str) -> str:
    """Deploy in a session that goes on; return the deployment's directory."""
    (Path(one.place) / "project" / "test_it.py").write_text(WAITING)
    one.start(manager=manager)
    assert wait(lambda: "deployed" in one.marks().values(), RUN_SECONDS), one.output
    (root,) = glob(f"{one.state_root}/*")
    return root


def crash(one: Session, manager: str) -> str:
    """Deploy, kill the guardian and pytest behind it; return the deployment's directory."""
    root = deployed(one, manager)
    lease = Leases().lease_of(root)
    assert lease is not None
    assert lease.guardian is not None
    os.kill(lease.guardian.pid, signal.SIGKILL)
    os.kill(one.pid, signal.SIGKILL)
    assert wait(lambda: not (is_alive(one.pid) or is_alive(lease.guardian.pid)), RUN_SECONDS)  # type: ignore[union-attr]
    os.waitpid(one.pid, 0)
    return root


def tagged(one: Session) -> set[int]:
    """Return the processes of the session's deployments."""
    tag = f"NIXPROC_DEPLOYMENT={one.state_root}/".encode()
    return {pid for pid in parents() if tag in environment_of(pid) and is_alive(pid)}


@contextmanager
def decoy(argv: list[str], **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has nothing to do with deployments, but looks as if."""
    process = subprocess.Popen(argv, env=variables, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield process
        assert process.poll() is None, "the decoy did not survive"
    finally:
        process.kill()
        process.communicate()


def copy_of(pid: int) -> list[str]:
    """Return a command that runs the same program, with the same arguments behind others that keep it harmless."""
    program, *arguments = command_line(pid).split(" ")
    return [program, "-I", "-S", "-c", "input()", *arguments]


@pytest.mark.parametrize("manager", MANAGERS)
def test_reap_cleans_up(project: Session, manager: str) -> None:
    """A dry run lists the leftover and touches nothing; reap takes it down, whole; the next one finds nothing."""
    root = crash(project, manager)
    before = tagged(project)
    assert before
    files = sorted(glob(f"{root}/**", recursive=True))
    dry = pytest_nixproc("reap", "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, f"would take down {root}\n"), dry.stderr
    assert tagged(project) == before
    assert sorted(glob(f"{root}/**", recursive=True)) == files
    with decoy(copy_of(min(before)), NIXPROC_INSTANCE="web"):
        done = pytest_nixproc("reap")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"taking down {root}\n")
    assert project.left() == {}
    assert pytest_nixproc("reap").stdout == "nothing is left of earlier runs\n"


def test_reap_finds_what_has_lost_its_lease(project: Session) -> None:
    """When a cleaner has removed the lease, reap goes by the journal; what a living session uses is not touched."""
    look = f"--state-root={project.state_root}"
    root = deployed(project, "sysvinit")
    lease = Leases().lease_of(root)
    shutil.rmtree(Leases().directory)
    before = tagged(project)
    assert pytest_nixproc("reap", look).stdout == "nothing is left of earlier runs\n"
    busy = pytest_nixproc("end", root)
    assert (busy.returncode, tagged(project)) == (5, before), busy.stderr
    assert lease is not None
    assert lease.guardian is not None
    for pid in (lease.guardian.pid, project.pid):
        os.kill(pid, signal.SIGKILL)
    assert wait(project.is_over, RUN_SECONDS)
    assert pytest_nixproc("reap", "--dry-run", look).stdout == f"would take down {root}\n"
    assert pytest_nixproc("reap", look).stdout.startswith(f"taking down {root}\n")
    assert project.left() == {}


@pytest.mark.parametrize("lost", ["lease", "lease and journal"])
def test_guardian_needs_no_lease(project: Session, lost: str) -> None:
    """When pytest is killed, its guardian takes down what it guards, whatever a cleaner has removed of it."""
    root = deployed(project, "supervisord")
    shutil.rmtree(Leases().directory)
    if lost == "lease and journal":
        os.unlink(f"{root}/journal")
    os.kill(project.pid, signal.SIGKILL)
    assert wait(lambda: project.left() == {}, LIMIT_SECONDS), project.left()


@pytest.mark.parametrize(
    "step",
    [
        "pytest_nixproc._persistence.assigner:Assigner.release",
        "pytest_nixproc._persistence.leases:PortLeases.release",
        pytest.param("pytest_nixproc._persistence.leases:PortLeases.write", marks=pytest.mark.long),
        pytest.param("pytest_nixproc._persistence.leases:Leases.leave", marks=pytest.mark.long),
        pytest.param("pytest_nixproc.machines.host.guardian:HostLifecycle.unguard", marks=pytest.mark.long),
        pytest.param("pytest_nixproc._persistence.directory:DeploymentDirectory.leave", marks=pytest.mark.long),
    ],
    ids=lambda step: step.partition(":")[2],
)
def test_killed_while_leases_are_given_back(project: Session, step: str) -> None:
    """When pytest is killed within the last steps of a teardown, its guardian does those that are left."""
    (Path(project.place) / "project" / "test_it.py").write_text(DIES_ON_THE_WAY)
    project.start(manager="sysvinit", STEP=step)
    assert wait(lambda: project.is_over() and project.left() == {}, LIMIT_SECONDS), (project.left(), project.output)
    assert "test_it.py ." in project.output or project.output.rstrip().endswith("."), project.output


@pytest.mark.parametrize("manager", MANAGERS)
def test_next_run_cleans_up(project: Session, manager: str) -> None:
    """The first deployment of the next session takes the leftover down, and its summary says so."""
    root = crash(project, manager)
    (Path(project.place) / "project" / "test_it.py").write_text("def test_it(nixproc_system): ...\n")
    project.start(f"--nixproc-manager={manager}")
    assert wait(project.is_over, RUN_SECONDS)
    assert "1 passed" in project.output, project.output
    assert f"took down what an earlier run has left in {root}" in project.output
    assert project.left() == {}


@pytest.mark.parametrize(("manager", "journal_knows"), [("supervisord", True), ("sysvinit", True), ("sysvinit", False)])
def test_process_that_has_got_a_recorded_pid_survives(
    project: Session,
    manager: str,
    journal_knows: bool,  # noqa: FBT001 - a table of values
) -> None:
    """A stranger with the pid of one of ours, in PID file or journal, is left alone: its start time tells."""
    root = crash(project, manager)
    pids = sorted(tagged(project))
    with decoy([sys.executable, "-I", "-S", "-c", "input()"]) as stranger:
        for pid_file in glob(f"{root}/var/run/*.pid"):
            Path(pid_file).write_text(f"{stranger.pid}\n")
        journal = Path(f"{root}/journal")
        old = {name: pid for line in journal.read_text().splitlines() for name, pid in pids_in(line).items()}
        assert old, "the journal records no pids"
        if journal_knows:
            lie = {name: [stranger.pid, str(int(start_time(stranger.pid)) - 1)] for name in old}
            with journal.open("a") as file:
                file.write(json.dumps({"event": "running", "pids": lie}) + "\n")
        done = pytest_nixproc("reap")
        assert done.returncode == 0, done.stderr
        assert str(stranger.pid) not in done.stdout
    assert not any(map(is_alive, pids))
    assert project.left() == {}


def pids_in(line: str) -> dict[str, object]:
    """Return the pids that one line of a journal records."""
    event = json.loads(line)
    return dict(event["pids"]) if event["event"] == "running" else {}


@pytest.mark.parametrize(
    ("manager", "damage"),
    [
        ("supervisord", "torn"),
        ("sysvinit", "empty"),
        ("sysvinit", "garbage"),
        ("supervisord", "no journal"),
        ("sysvinit", "foreign event"),
        ("sysvinit", "no profile"),
        ("supervisord", "half removed"),
    ],
)
def test_damaged_leftovers_are_cleaned_up(project: Session, manager: str, damage: str) -> None:
    """Whatever the power cut has left of journal and files, reap ends the processes and removes everything."""
    root = crash(project, manager)
    journal = Path(f"{root}/journal")
    match damage:
        case "torn":
            journal.write_bytes(journal.read_bytes()[:-20])
        case "empty":
            journal.write_bytes(b"")
        case "garbage":
            journal.write_bytes(b"\0\xff\xfe{}\n[]\n" * 10)
        case "no journal":
            journal.unlink()
        case "foreign event":
            journal.write_bytes(b'{"event": "begin"}\n' + journal.read_bytes())
        case "no profile":
            subprocess.run(["/bin/rm", "-r", f"{root}/profile"], check=True)
        case "half removed":
            subprocess.run(["/bin/rm", "-r", f"{root}/profile", f"{root}/var", f"{root}/journal"], check=True)
    done = pytest_nixproc("reap")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert project.left() == {}


def test_many_reapers_do_not_disturb_each_other(project: Session) -> None:
    """Of several that reap at the same time, one takes the leftover down; the others find it taken, or nothing."""
    root = crash(project, "sysvinit")
    argv = [sys.executable, "-m", "pytest_nixproc", "reap"]
    reapers = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(4)]
    outputs = [reaper.communicate()[0] for reaper in reapers]
    assert [reaper.returncode for reaper in reapers] == [0] * 4, outputs
    assert sum(root in output for output in outputs) == 1, outputs
    assert project.left() == {}


def test_living_and_kept_deployments_are_left_alone(project: Session) -> None:
    """Reap touches no deployment whose test process lives, and none that is kept on purpose."""
    (Path(project.place) / "project" / "test_it.py").write_text("def test_it(nixproc_system): ...\n")
    project.start("--nixproc-keep=always")
    assert wait(project.is_over, RUN_SECONDS)
    (kept,) = glob(f"{project.state_root}/*")
    ports = [int(line) for line in Path(f"{project.place}/ports").read_text().split()]
    assert pytest_nixproc("reap").stdout == "nothing is left of earlier runs\n"
    urlopen(f"http://127.0.0.1:{ports[0]}", timeout=5).close()
    assert pytest_nixproc("stop", kept).returncode == 0
    assert wait(lambda: project.left() == {}, 5), project.left()


def test_corrupt_lease_is_told_of_and_hides_nothing(project: Session) -> None:
    """A lease that cannot be read is named with the remedy; what the others name is taken down all the same."""
    root = crash(project, "sysvinit")
    (Path(Leases().directory) / "broken.json").write_text("{")
    done = pytest_nixproc("reap")
    assert done.returncode == 1
    assert f"taking down {root}" in done.stdout
    assert "broken.json: remove it when no test runs" in done.stderr
    assert project.left() == {}


def test_leases_that_somebody_else_could_have_forged_are_not_followed(tmp_path: Path) -> None:
    """A world-writable directory of leases is one clear error, and what it names is not removed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    directory = Path(Leases().directory)
    directory.mkdir(parents=True, mode=0o700)
    forged: dict[str, object] = {
        "root": str(precious),
        "users": [],
        "guardian": None,
        "kept": False,
        "run": "",
        "phase": "ready",
    }
    (directory / "precious.json").write_text(json.dumps(forged))
    directory.chmod(0o777)
    done = pytest_nixproc("reap")
    assert done.returncode == 1
    assert f"{directory} cannot be trusted with leases: others can write it" in done.stderr
    assert "Traceback" not in done.stderr
    assert precious.is_dir()
