"""The fake machine: its files behave as the host's do, its processes as they are told."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixproc.errors import CommandFailed, WaitTimeout
from pytest_nixproc.machines.api import Listener, Machine, Spawn
from pytest_nixproc.machines.host import Host
from pytest_nixproc.testing.fake_machine import FakeMachine, by_program, each, ends, ignores, listens

SERVER = Spawn(("/bin/server",), {"TAG": "x"})


@pytest.fixture
def machine() -> FakeMachine:
    """Return a machine with nothing on it."""
    return FakeMachine()


@pytest.fixture(params=[Host, FakeMachine])
def any_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Return the fake machine and the real one, of which only files are used here."""
    machine = request.param()
    yield machine
    machine.close()


def test_files(any_machine: Machine, tmp_path: Path) -> None:
    """A file is written with its directories, and read from any byte on; an absent one is None and has no size."""
    path = f"{tmp_path}/a/b"
    assert (any_machine.read(path), any_machine.size(path), any_machine.exists(path)) == (None, 0, False)
    any_machine.write(path, "häl\udcfflo")
    assert any_machine.read(path) == b"h\xc3\xa4l\xfflo"
    assert any_machine.read(path, 4) == b"\xfflo"
    assert (any_machine.size(path), any_machine.exists(path), any_machine.exists(f"{tmp_path}/a")) == (7, True, True)
    any_machine.write(path, "")
    assert any_machine.read(path) == b""


def test_links_are_replaced(any_machine: Machine, tmp_path: Path) -> None:
    """A link is made with its directories; made again, it points to the new target."""
    for target in ("../x", "../y"):
        any_machine.link(f"{tmp_path}/rc/S00web", target)
    assert any_machine.exists(f"{tmp_path}/rc/S00web")


def test_directories(any_machine: Machine, tmp_path: Path) -> None:
    """A directory can be made twice, and is removed with all that is in it, once or more often."""
    for _ in range(2):
        any_machine.make_directory(f"{tmp_path}/d/e")
    any_machine.write(f"{tmp_path}/d/e/f", "x")
    any_machine.write(f"{tmp_path}/d2", "x")
    for _ in range(2):
        any_machine.remove(f"{tmp_path}/d")
    assert (any_machine.exists(f"{tmp_path}/d/e/f"), any_machine.exists(f"{tmp_path}/d2")) == (False, True)


def test_clock_is_driven_by_hand(machine: FakeMachine) -> None:
    """Time passes by pausing alone, and what is due happens at its time and in its order."""
    seen: list[tuple[str, float]] = []
    machine.after(2, lambda: seen.append(("late", machine.now())))
    machine.after(1, lambda: seen.append(("early", machine.now())))
    machine.after(0, lambda: seen.append(("now", machine.now())))
    machine.pause(5)
    assert seen == [("now", 0), ("early", 1), ("late", 2)]
    assert machine.now() == 5


def test_pause_ends_with_a_process(machine: FakeMachine) -> None:
    """A pause is over when a process ends meanwhile."""
    machine.program("/bin/server", ends(3, after=0.5))
    pid = machine.spawn(SERVER)
    machine.pause(10)
    assert (machine.now(), machine.exit_status(pid), machine.ended([pid, 1234])) == (0.5, 3, {pid, 1234})


def test_server_listens_until_it_ends(machine: FakeMachine) -> None:
    """A port is open from its time to the end of its process."""
    machine.program("/bin/server", listens(80, after=1))
    pid = machine.spawn(SERVER)
    assert machine.connection_problem(("127.0.0.1", 80)) == "Connection refused"
    machine.wait_for_open_port(80)
    assert machine.listeners() == [Listener("127.0.0.1", 80, pid)]
    assert not machine.port_is_free(80)
    machine.signal(pid, signal.SIGTERM)
    machine.wait_for_closed_port(80)
    assert machine.exit_status(pid) == -signal.SIGTERM


def test_server_that_has_ended_does_not_listen(machine: FakeMachine) -> None:
    """A port that was to open later stays closed when the process has ended before."""
    machine.program("/bin/server", each(listens(80, after=1), ends(1, after=0.5)))
    machine.spawn(SERVER)
    machine.advance(2)
    assert machine.port_is_free(80)


def test_signals(machine: FakeMachine) -> None:
    """A signal ends a process unless it is harmless or ignored; SIGKILL always does."""
    machine.program("/bin/server", ignores(signal.SIGTERM))
    pid = machine.spawn(SERVER)
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT):
        machine.signal(pid, number)
        assert not machine.ended([pid])
    machine.signal(pid, signal.SIGKILL)
    machine.signal(pid, signal.SIGTERM)
    assert machine.processes[pid].received == [signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL]


def test_family(machine: FakeMachine) -> None:
    """Children know their parent until it ends; what runs is found by its tag."""
    parent = machine.spawn(SERVER)
    child = machine.fork(parent)
    assert machine.parents() == {parent: 1, child: parent}
    machine.end(parent)
    assert machine.parents() == {child: 1}
    assert (machine.strays("TAG=x"), machine.strays("TAG=y")) == ([child], [])
    assert (machine.describe(child), machine.describe(1)) == ("/bin/server", "")
    assert by_program(machine)["/bin/server"].pid == child


@pytest.mark.parametrize(("release", "left"), [(True, 1), (False, 0)])
def test_close(machine: FakeMachine, release: bool, left: int) -> None:  # noqa: FBT001
    """Closing ends all processes, unless they were released."""
    machine.spawn(SERVER)
    if release:
        machine.release()
    machine.close()
    assert len(machine.running()) == left


def test_commands(machine: FakeMachine) -> None:
    """The verbs for tests work on scripted programs, and take no more time than these."""
    machine.program("/bin/sh", ends(1, after=0.5, output="no\n"))
    assert machine.fail("false") == "no\n"
    with pytest.raises(CommandFailed, match="ended with status 1: false"):
        machine.succeed("false")
    assert machine.now() == 1.0


def test_commands_end_at_the_deadline(machine: FakeMachine) -> None:
    """A command that runs on has no status at the deadline."""
    assert machine.run([SERVER, SERVER], machine.deadline(2)) == [None, None]
    assert machine.now() == 2


def test_waiting_for_what_never_comes(machine: FakeMachine) -> None:
    """A wait ends at its limit by the machine's clock, with the last thing seen."""
    with pytest.raises(WaitTimeout, match="wait for file /x: not within 3 s") as caught:
        machine.wait_for_file("/x", timeout=3)
    assert caught.value.details == "last seen: no such file"
    assert machine.now() == 3
