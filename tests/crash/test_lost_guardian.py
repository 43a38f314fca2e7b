"""The guardian is killed or frozen, or chases what flees: nothing is left, and nothing is removed under what runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pytest_nixproc.machines.process_table import is_alive, is_stopped
from tests.crash.storm import LIMIT_SECONDS, RUN_SECONDS, Session, unavailable_reason_of, wait

TEST = """
import os
import signal
import time

from conftest import mark


def test_it(nixproc_system):
    guardian = os.environ["GUARDIAN_FILE"]
    with open(guardian + ".new", "w") as file:
        file.write(str(nixproc_system.machine.lifecycle.guard("/none", ["/bin/true"])))
    os.rename(guardian + ".new", guardian)
    mark("deployed")
    time.sleep(600)
"""

FROZEN = """
import os
import signal


def test_it(nixproc_system, tmp_path):
    guardian = nixproc_system.machine.lifecycle.guard("/none", ["/bin/true"])
    nixproc_system.machine.lifecycle.unguard("/none")
    os.kill(guardian, signal.SIGSTOP)
    nixproc_system["front"].restart()
    os.kill(guardian, signal.SIGSTOP)
"""

AGENT = """
import os
import signal


def test_it(nixproc_system):
    # Its agent, and the guardian inside it, which is the agent's child.
    machine = nixproc_system.machine
    for command in ("kill -STOP $PPID", "kill -STOP $(ps -o ppid= -p $PPID)"):
        machine.begin(lambda command=command: machine.execute(command))
    nixproc_system["front"].restart()
"""

FLEES = '''
"""A program that goes on as its own child without a pause, in a new session each time, once it is asked to end."""

import sys

from pytest_nixproc import Instance, create_managed_process

PROGRAM = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("up", flush=True)
signal.sigwait([signal.SIGTERM])
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


def processes():
    flees = create_managed_process(name="flees", foreground_process=sys.executable, args=["-I", "-S", "-c", PROGRAM])
    return {"flees": Instance(flees)}
'''


def written(project: Session, **files: str) -> Session:
    """Write files of a session's project."""
    for name, text in files.items():
        (Path(project.place) / "project" / f"{name}.py").write_text(text)
    return project


def deployed(project: Session, manager: str) -> int:
    """Start a session, wait until its system is up, and return the guardian."""
    if reason := unavailable_reason_of(manager):
        pytest.skip(reason)
    file = Path(project.place) / "guardian"
    written(project, test_it=TEST).start(manager=manager, GUARDIAN_FILE=str(file))
    assert wait(lambda: file.exists() or project.is_over(), RUN_SECONDS), project.output
    assert file.exists(), project.output
    return int(file.read_text())


MANAGERS = [
    "supervisord",
    "sysvinit",
    pytest.param("systemd", marks=pytest.mark.long),
    pytest.param("docker", marks=pytest.mark.long),
    pytest.param("supervisord@nspawn", marks=pytest.mark.long),
]


@pytest.mark.parametrize("manager", MANAGERS)
def test_guardian_is_killed_and_then_pytest_is_terminated(project: Session, manager: str) -> None:
    """The teardown goes on with a new guardian, and says that the first one is gone; nothing is left."""
    guardian = deployed(project, manager)
    os.kill(guardian, signal.SIGKILL)
    assert wait(lambda: not is_alive(guardian), LIMIT_SECONDS)
    os.kill(project.pid, signal.SIGTERM)
    assert wait(lambda: project.is_over() and project.left() == {}, 2 * LIMIT_SECONDS), (project.left(), project.output)
    assert "Traceback" not in project.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("manager", ["supervisord", pytest.param("sysvinit", marks=pytest.mark.long)])
def test_guardian_is_frozen_and_then_pytest_ends(project: Session, manager: str, number: signal.Signals) -> None:
    """A teardown wakes the guardian; after the death of pytest, reap does, and nothing is removed before."""
    from pytest_nixproc._cli import main

    guardian = deployed(project, manager)
    os.kill(guardian, signal.SIGSTOP)
    assert wait(lambda: is_stopped(guardian), LIMIT_SECONDS)
    os.kill(project.pid, number)
    assert wait(project.is_over, RUN_SECONDS), project.output
    if number == signal.SIGKILL:
        assert {"processes", "directories", "leases"} <= project.left().keys()
        assert main(["reap"]) == 0
    assert wait(lambda: project.left() == {}, LIMIT_SECONDS), (project.left(), project.output)
    assert wait(lambda: not is_alive(guardian), LIMIT_SECONDS)


@pytest.mark.parametrize("manager", ["supervisord", pytest.param("sysvinit", marks=pytest.mark.long)])
def test_frozen_guardian_is_woken_by_the_next_request(project: Session, manager: str) -> None:
    """A test that goes on beside a guardian that somebody has stopped waits for a moment, and passes."""
    written(project, test_it=FROZEN).start(manager=manager)
    assert wait(lambda: project.is_over() and project.left() == {}, RUN_SECONDS), (project.left(), project.output)
    assert "1 passed" in project.output, project.output


@pytest.mark.long
def test_frozen_agent_is_woken_by_the_next_request(project: Session) -> None:
    """A test goes on though somebody has stopped the agent of its throwaway machine, and the guardian there."""
    if reason := unavailable_reason_of("supervisord@nspawn"):
        pytest.skip(reason)
    written(project, test_it=AGENT).start(manager="supervisord@nspawn")
    assert wait(lambda: project.is_over() and project.left() == {}, RUN_SECONDS), (project.left(), project.output)
    assert "1 passed" in project.output, project.output


@pytest.mark.parametrize("number", [0, signal.SIGKILL], ids=["teardown", "recovery"])
@pytest.mark.parametrize("manager", ["supervisord", pytest.param("sysvinit", marks=pytest.mark.long)])
def test_what_flees_is_caught(project: Session, manager: str, number: int) -> None:
    """A program that forks and ends without a pause escapes neither the audit of a teardown nor a recovery."""
    text = f"import os\n\ndef test_it(nixproc_system):\n    os.kill(os.getpid(), {int(number)})\n"
    written(project, processes=FLEES, test_it=text).start(manager=manager)
    over = wait(lambda: project.is_over() and project.left() == {}, RUN_SECONDS)
    assert over, (project.left(), project.output)
    if not number:
        assert "was left behind" in project.output, project.output
