"""Programs that do not want to end, guardians that are killed, signals in the middle: nothing is left of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from glob import glob
from pathlib import Path

import pytest

from pytest_nixproc.machines.process_table import command_line, descendants, environment_of, is_alive, parents
from tests.crash.storm import LIMIT_SECONDS, RUN_SECONDS, Session, wait

ESCAPING = """
def work():
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note()
    stay()
"""

FORKING = """
COUNT = TOLD + ".count"

def may_fork():
    descriptor = os.open(COUNT, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b".")
    os.close(descriptor)
    return os.stat(COUNT).st_size <= 200

def again(*_):
    if may_fork() and not os.fork():
        note()

def work():
    signal.signal(signal.SIGTERM, again)
    note()
    while True:
        child = os.fork() if may_fork() else 0
        if not child:
            signal.signal(signal.SIGTERM, again)
            note()
            stay()
        if os.stat(COUNT).st_size > 40:
            os.waitpid(child, 0)
"""

WIPING = """
def work():
    os.setsid()
    if os.fork():
        os._exit(0)
    note()
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"], {})
"""

MODEL = '''
import sys
from pytest_nixproc import Instance, create_managed_process

PROGRAM = """
import os, signal, sys, time

TOLD = sys.argv[1]

def note():
    descriptor = os.open(TOLD, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{{os.getpid()}} ".encode())
    os.close(descriptor)

def stay():
    while True:
        signal.pause()
{behaviour}
if not os.fork():
    work()
stay()
"""

def processes(told):
    pkg = create_managed_process(name="hostile", foreground_process=sys.executable, args=["-I", "-c", PROGRAM, told])
    return {{"hostile": Instance(pkg)}}
'''

TEST = """
import os, time
from conftest import mark

def test_it(nixproc_system, request):
    told = next(line for line in request.config.getini("nixproc_param") if line.startswith("told=")).split("=")[1]
    while not os.path.exists(told) or len(open(told).read().split()) < LEAST:
        time.sleep(0.01)
    mark("deployed")
    if STAYS:
        time.sleep(600)
"""

WAITING = """
import time
from conftest import mark

def test_it(nixproc_system):
    mark("deployed")
    time.sleep(600)
"""


def write(one: Session, name: str, text: str) -> None:
    """Write a file of the project."""
    (Path(one.place) / "project" / name).write_text(text)


def hostile(one: Session, behaviour: str, manager: str, least: int, *, stays: bool) -> set[int]:
    """Deploy a hostile program, until it has started ``least`` processes; return all that it ever started."""
    told = f"{one.place}/told"
    write(one, "processes.py", MODEL.format(behaviour=behaviour))
    write(one, "test_it.py", TEST.replace("LEAST", str(least)).replace("STAYS", str(stays)))
    ini = f"[pytest]\naddopts = -p no:xdist\nnixproc_model = processes.py\nnixproc_param = told={told}\n"
    write(one, "pytest.ini", ini)
    one.start(f"--nixproc-manager={manager}", "--nixproc-stop-timeout=1")
    assert wait(lambda: "deployed" in one.marks().values() or one.is_over(), RUN_SECONDS), one.output
    return {int(pid) for pid in Path(told).read_text().split()}


def living(one: Session) -> list[str]:
    """Return the processes that the hostile program has started and that live."""
    pids = set(map(int, Path(f"{one.place}/told").read_text().split()))
    return [f"{pid}: {command_line(pid)}" for pid in pids if is_alive(pid)]


HOSTILE: Mapping[str, tuple[str, int]] = {"escapes": (ESCAPING, 1), "forks": (FORKING, 40), "wipes": (WIPING, 1)}


@pytest.mark.parametrize("behaviour", HOSTILE)
@pytest.mark.parametrize("manager", ["supervisord", "sysvinit"])
def test_teardown_ends_what_does_not_want_to(project: Session, behaviour: str, manager: str) -> None:
    """Whatever a program does to escape, its processes are gone after the teardown, which reports them."""
    code, least = HOSTILE[behaviour]
    hostile(project, code, manager, least, stays=False)
    assert wait(project.is_over, RUN_SECONDS)
    assert living(project) == []
    assert project.left() == {}
    assert "was left behind, and killed" in project.output, project.output


@pytest.mark.parametrize(
    ("behaviour", "manager"), [("escapes", "supervisord"), ("forks", "sysvinit"), ("wipes", "supervisord")]
)
def test_guardian_ends_what_does_not_want_to(project: Session, behaviour: str, manager: str) -> None:
    """The same when pytest is killed: the guardian ends them all, and removes the state."""
    code, least = HOSTILE[behaviour]
    hostile(project, code, manager, least, stays=True)
    os.kill(project.pid, signal.SIGKILL)
    assert wait(lambda: project.left() == {} and living(project) == [], LIMIT_SECONDS), (
        project.left(),
        living(project),
    )


@pytest.mark.parametrize("manager", ["supervisord", "sysvinit"])
def test_death_of_the_guardian_is_loud(project: Session, manager: str) -> None:
    """When the guardian is killed, the system's next operation fails and says so; reap removes what is left then."""
    write(
        project,
        "test_it.py",
        "import os, signal\n"
        "def test_it(nixproc_system):\n"
        "    guardian = nixproc_system.machine.lifecycle.guardian.connection.process\n"
        "    os.kill(guardian.pid, signal.SIGKILL)\n"
        "    guardian.wait()\n"
        "    nixproc_system['front'].restart()\n",
    )
    project.start(f"--nixproc-manager={manager}")
    assert wait(project.is_over, RUN_SECONDS), project.output
    assert "MachineError: the guardian of the deployed processes is gone" in project.output, project.output
    assert "1 failed" in project.output
    from pytest_nixproc._cli import main

    assert main(["reap"]) == 0
    assert wait(lambda: project.left() == {}, LIMIT_SECONDS), project.left()


def guardians(one: Session) -> list[int]:
    """Return the processes below the session that are no deployed ones."""
    below = descendants([one.pid], parents())
    return [pid for pid in below if b"NIXPROC_DEPLOYMENT=" not in environment_of(pid) and is_alive(pid)]


def memory(pid: int) -> int:
    """Return a process's share of memory, in bytes (proc(5), ``smaps_rollup``)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@pytest.mark.parametrize(("manager", "number"), [("sysvinit", 1), ("supervisord", 2)])
def test_guardian_costs_little(project: Session, manager: str, number: int) -> None:
    """While a system is deployed, a guardian is there besides, and for supervisord a template: of less than 30 MB."""
    write(project, "test_it.py", WAITING)
    project.start(manager=manager)
    assert wait(lambda: "deployed" in project.marks().values(), RUN_SECONDS), project.output
    found = guardians(project)
    assert len(found) == number, [command_line(pid) for pid in found]
    assert sum(map(memory, found)) < 30 * 1000 * 1000
    for pid in found:
        assert os.getsid(pid) == pid
        descriptors = {os.readlink(path).split(":")[0] for path in glob(f"/proc/{pid}/fd/*")}
        assert descriptors <= {"/dev/null", "socket", "pipe", "anon_inode"}, descriptors
    os.kill(project.pid, signal.SIGTERM)
    assert wait(lambda: project.left() == {}, LIMIT_SECONDS), project.left()


def test_nothing_runs_when_nothing_is_deployed(project: Session) -> None:
    """A session that deploys nothing has no guardian, no leases and no files, also where it could deploy."""
    write(
        project,
        "test_it.py",
        "import time\n"
        "from conftest import mark\n"
        "def test_it(nixproc_manager, nixproc_machine, nixproc_deploy):\n"
        "    mark('idle')\n"
        "    time.sleep(600)\n",
    )
    project.start()
    assert wait(lambda: "idle" in project.marks().values(), RUN_SECONDS), project.output
    assert descendants([project.pid], parents()) == []
    assert not os.path.exists(project.state_root)
    os.kill(project.pid, signal.SIGKILL)
    assert wait(lambda: project.left() == {}, LIMIT_SECONDS)


SIGNALS = """
import signal
import pytest
from pytest_nixproc.errors import NixprocError

NAMES = (signal.SIGTERM, signal.SIGINT)

@pytest.fixture(scope="module")
def before():
    def mine(*_): ...
    signal.signal(signal.SIGTERM, mine)
    found = [signal.getsignal(number) for number in NAMES]
    assert found[0] is mine
    yield found
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

def test_handlers(before, nixproc_deploy):
    with nixproc_deploy("processes.py"):
        assert all(signal.getsignal(number) is not old for number, old in zip(NAMES, before))
        with nixproc_deploy("processes.py"):
            pass
        assert all(signal.getsignal(number) is not old for number, old in zip(NAMES, before))
    assert [signal.getsignal(number) for number in NAMES] == before
    with pytest.raises(NixprocError), nixproc_deploy(lambda: 1 // 0):
        pass
    assert [signal.getsignal(number) for number in NAMES] == before
"""


def test_handlers_are_restored(project: Session) -> None:
    """While a system is up SIGTERM and SIGINT are ours; afterwards, and after a failure, the previous handlers are."""
    write(project, "test_it.py", SIGNALS)
    project.start()
    assert wait(project.is_over, RUN_SECONDS)
    assert "1 passed" in project.output, project.output
    assert project.left() == {}


ENDS_SLOWLY = """
import sys
from pytest_nixproc import Instance, create_managed_process, ready

CODE = '''
import pathlib, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
pathlib.Path(sys.argv[2]).touch()
signal.sigwait([signal.SIGTERM])
time.sleep(1)
pathlib.Path(sys.argv[1]).touch()
'''

def processes(state, ended):
    there = f"{state.tmp_dir}/ready"
    pkg = create_managed_process(name="slow", foreground_process=sys.executable, args=["-c", CODE, ended, there])
    return {"slow": Instance(pkg, ready=ready.file(there))}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_teardown_lets_it_finish(project: Session, number: signal.Signals) -> None:
    """A signal that comes while a system is being stopped does not cut that off: a slow program ends by itself."""
    ended = f"{project.place}/ended"
    write(project, "processes.py", ENDS_SLOWLY)
    write(
        project,
        "test_it.py",
        "import os, signal, threading, time\n"
        "def test_it(nixproc_system):\n"
        "    def end():\n"
        "        while nixproc_system._deployment.operation.context.running:\n"
        "            if nixproc_system.timeline.order('stop'):\n"
        f"                os.kill(os.getpid(), {int(number)})\n"
        "                return\n"
        "            time.sleep(0.005)\n"
        "    threading.Thread(target=end, daemon=True).start()\n",
    )
    project.start("--nixproc-stop-timeout=10", f"--nixproc-param=ended={ended}")
    assert wait(project.is_over, RUN_SECONDS)
    assert "1 passed" in project.output, project.output
    assert "KeyboardInterrupt" in project.output or "Terminated" in project.output, project.output
    assert os.path.exists(ended), project.output
    assert project.left() == {}
