"""What a stop leaves behind: one judgement after one grace, and the end of it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import pytest

from pytest_nixproc._deployment.leftovers import GRACE_SECONDS, end_all, end_left_behind, left_behind
from pytest_nixproc.testing.fake_machine import FakeMachine, each, ends, ignores, listens
from pytest_nixproc.values.commands import Spawn

TAGS = {"NIXPROC_DEPLOYMENT": "/srv", "NIXPROC_INSTANCE": "web"}
Look = Callable[[], list[int]]


@pytest.fixture
def look(machine: FakeMachine) -> Look:
    """Return the function that finds the processes of the deployment."""
    return partial(machine.processes.strays, "NIXPROC_DEPLOYMENT=/srv")


def test_strays_are_killed_and_described(machine: FakeMachine, look: Look) -> None:
    """What still carries the tag is killed, and told: whose it is, which ports it held, its command; others are not."""
    machine.processes.program("/bin/stray", each(ignores(signal.SIGTERM), listens(8080)))
    stray = machine.processes.spawn(Spawn(("/bin/stray", "-x"), TAGS))
    other = machine.processes.spawn(Spawn(("/bin/other",), {"NIXPROC_DEPLOYMENT": "/srv2"}))
    (leftover,) = end_left_behind(machine, look)
    problem = f"process {stray} of web was left behind, holding TCP port 8080, and killed: /bin/stray -x"
    assert leftover.problem == problem
    assert machine.processes.by_pid[stray].received == [signal.SIGSTOP, signal.SIGKILL]
    assert [process.pid for process in machine.processes.running()] == [other]
    assert end_left_behind(machine, look) == []


def test_process_of_nobody(machine: FakeMachine, look: Look) -> None:
    """A process that carries no instance's name is told without one."""
    stray = machine.processes.spawn(Spawn(("/bin/stray",), {"NIXPROC_DEPLOYMENT": "/srv"}))
    assert [item.problem for item in end_all(machine, look)] == [
        f"process {stray} was left behind, and killed: /bin/stray"
    ]


@pytest.mark.parametrize(("seconds", "is_left"), [(GRACE_SECONDS - 0.1, False), (GRACE_SECONDS + 0.1, True)])
def test_grace(machine: FakeMachine, look: Look, seconds: float, *, is_left: bool) -> None:
    """What ends by itself within the grace is not left behind, and nothing is sent to it; what outlives it is."""
    machine.processes.program("/bin/helper", ends(after=seconds))
    helper = machine.processes.spawn(Spawn(("/bin/helper",), TAGS))
    assert left_behind(machine, look) == ([helper] if is_left else [])
    assert machine.clock.now() <= GRACE_SECONDS
    end_left_behind(machine, look)
    assert machine.processes.by_pid[helper].received == []


def test_nothing_left_costs_no_time(machine: FakeMachine, look: Look) -> None:
    """Nobody waits for the end of a grace when there is nothing to wait for."""
    assert end_left_behind(machine, look) == []
    assert machine.clock.now() == 0


def test_each_generation_is_ended(machine: FakeMachine, look: Look) -> None:
    """What has been forked before its parent was frozen is found by the next look, and told too."""
    stray = machine.processes.spawn(Spawn(("/bin/stray",), TAGS))
    looks: list[int] = []

    def find() -> list[int]:
        looks.append(len(looks))
        if len(looks) == 2:
            machine.processes.fork(stray)
        return look()[:1]

    assert len(end_all(machine, find)) == 2
    assert machine.processes.running() == []
