"""The fake machine: its files behave as the host's do, its processes as they are told."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixproc.errors import CommandFailed, WaitTimeout
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.parts import Files
from pytest_nixproc.testing.fake_machine import FakeMachine, by_program, each, ends, ignores, listens
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import Listener

SERVER = Spawn(("/bin/server",), {"TAG": "x"})


@pytest.fixture
def machine() -> FakeMachine:
    """Return a machine with nothing on it."""
    return FakeMachine()


@pytest.fixture(params=[Host, FakeMachine])
def files(request: pytest.FixtureRequest) -> Iterator[Files]:
    """Return the files of the fake machine, and those of the real one."""
    with request.param() as machine:
        yield machine.files


def test_files(files: Files, tmp_path: Path) -> None:
    """A file is written with its directories, and read from any byte on; an absent one is None and has no size."""
    path = f"{tmp_path}/a/b"
    assert (files.read(path), files.size(path), files.exists(path)) == (None, 0, False)
    files.write(path, "häl\udcfflo")
    assert files.read(path) == b"h\xc3\xa4l\xfflo"
    assert files.read(path, 4) == b"\xfflo"
    assert (files.size(path), files.exists(path), files.exists(f"{tmp_path}/a")) == (7, True, True)
    files.write(path, "")
    assert files.read(path) == b""


def test_links_are_replaced(files: Files, tmp_path: Path) -> None:
    """A link is made with its directories; made again, it points to the new target."""
    for target in ("../x", "../y"):
        files.link(f"{tmp_path}/rc/S00web", target)
    assert files.exists(f"{tmp_path}/rc/S00web")


def test_real_paths(files: Files, tmp_path: Path) -> None:
    """What lies behind a link, relative or absolute, has the path of the link's target; all else has its own."""
    files.make_directory(f"{tmp_path}/real/d")
    files.link(f"{tmp_path}/absolute", f"{tmp_path}/real")
    files.link(f"{tmp_path}/rc/relative", "../real/d")
    assert files.real_paths([f"{tmp_path}/absolute/d", f"{tmp_path}/rc/relative", f"{tmp_path}/nothing"]) == {
        f"{tmp_path}/absolute/d": f"{tmp_path}/real/d",
        f"{tmp_path}/rc/relative": f"{tmp_path}/real/d",
        f"{tmp_path}/nothing": f"{tmp_path}/nothing",
    }


def test_directories(files: Files, tmp_path: Path) -> None:
    """A directory can be made twice, and is removed with all that is in it, once or more often."""
    for _ in range(2):
        files.make_directory(f"{tmp_path}/d/e")
    files.write(f"{tmp_path}/d/e/f", "x")
    files.write(f"{tmp_path}/d2", "x")
    for _ in range(2):
        files.remove(f"{tmp_path}/d")
    assert (files.exists(f"{tmp_path}/d/e/f"), files.exists(f"{tmp_path}/d2")) == (False, True)


def test_clock_is_driven_by_hand(machine: FakeMachine) -> None:
    """Time passes by pausing alone, and what is due happens at its time and in its order."""
    seen: list[tuple[str, float]] = []
    machine.clock.after(2, lambda: seen.append(("late", machine.clock.now())))
    machine.clock.after(1, lambda: seen.append(("early", machine.clock.now())))
    machine.clock.after(0, lambda: seen.append(("now", machine.clock.now())))
    machine.clock.pause(5)
    assert seen == [("now", 0), ("early", 1), ("late", 2)]
    assert machine.clock.now() == 5


def test_pause_ends_with_a_process(machine: FakeMachine) -> None:
    """A pause is over when a process ends meanwhile."""
    machine.processes.program("/bin/server", ends(3, after=0.5))
    pid = machine.processes.spawn(SERVER)
    machine.clock.pause(10)
    assert (machine.clock.now(), machine.processes.exit_status(pid), machine.processes.ended([pid, 1234])) == (
        0.5,
        3,
        {pid, 1234},
    )


def test_server_listens_until_it_ends(machine: FakeMachine) -> None:
    """A port is open from its time to the end of its process."""
    machine.processes.program("/bin/server", listens(80, after=1))
    pid = machine.processes.spawn(SERVER)
    assert machine.network.connection_problem(("127.0.0.1", 80)) == "Connection refused"
    machine.wait_for_open_port(80)
    assert machine.network.listeners() == [Listener("127.0.0.1", 80, pid)]
    assert not machine.network.port_is_free(80)
    machine.processes.signal(pid, signal.SIGTERM)
    machine.wait_for_closed_port(80)
    assert machine.processes.exit_status(pid) == -signal.SIGTERM


def test_server_that_has_ended_does_not_listen(machine: FakeMachine) -> None:
    """A port that was to open later stays closed when the process has ended before."""
    machine.processes.program("/bin/server", each(listens(80, after=1), ends(1, after=0.5)))
    machine.processes.spawn(SERVER)
    machine.clock.advance(2)
    assert machine.network.port_is_free(80)


def test_signals(machine: FakeMachine) -> None:
    """A signal ends a process unless it is harmless or ignored; SIGKILL always does."""
    machine.processes.program("/bin/server", ignores(signal.SIGTERM))
    pid = machine.processes.spawn(SERVER)
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT):
        machine.processes.signal(pid, number)
        assert not machine.processes.ended([pid])
    machine.processes.signal(pid, signal.SIGKILL)
    machine.processes.signal(pid, signal.SIGTERM)
    assert machine.processes.by_pid[pid].received == [signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL]


def test_family(machine: FakeMachine) -> None:
    """Children know their parent until it ends; what runs is found by its tag."""
    parent = machine.processes.spawn(SERVER)
    child = machine.processes.fork(parent)
    assert machine.processes.parents() == {parent: 1, child: parent}
    machine.processes.end(parent)
    assert machine.processes.parents() == {child: 1}
    assert (machine.processes.strays("TAG=x"), machine.processes.strays("TAG=y")) == ([child], [])
    assert (machine.processes.describe(child), machine.processes.describe(1)) == ("/bin/server", "")
    assert by_program(machine)["/bin/server"].pid == child


@pytest.mark.parametrize(("release", "left"), [(True, 1), (False, 0)])
def test_close(machine: FakeMachine, release: bool, left: int) -> None:  # noqa: FBT001
    """Closing ends all processes, unless they were released."""
    machine.processes.spawn(SERVER)
    if release:
        machine.lifecycle.release()
    machine.lifecycle.close()
    assert len(machine.processes.running()) == left


def test_commands(machine: FakeMachine) -> None:
    """The verbs for tests work on scripted programs, and take no more time than these."""
    machine.processes.program("/bin/sh", ends(1, after=0.5, output="no\n"))
    assert machine.fail("false") == "no\n"
    with pytest.raises(CommandFailed, match="ended with status 1: false"):
        machine.succeed("false")
    assert machine.clock.now() == 1.0


def test_commands_end_at_the_deadline(machine: FakeMachine) -> None:
    """A command that runs on has no status at the deadline."""
    assert machine.processes.run([SERVER, SERVER], machine.deadline(2)) == [None, None]
    assert machine.clock.now() == 2


def test_waiting_for_what_never_comes(machine: FakeMachine) -> None:
    """A wait ends at its limit by the machine's clock, with the last thing seen."""
    with pytest.raises(WaitTimeout, match="wait for file /x: not within 3 s") as caught:
        machine.wait_for_file("/x", timeout=3)
    assert caught.value.details == "last seen: no such file"
    assert machine.clock.now() == 3
