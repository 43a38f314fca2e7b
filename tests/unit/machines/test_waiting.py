"""The one way of waiting."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pytest_nixproc.errors import WaitTimeout
from pytest_nixproc.machines.waiting import FIRST_PAUSE, LONGEST_PAUSE, wait_until
from pytest_nixproc.testing.fake_machine import FakeMachine


@pytest.fixture
def machine() -> FakeMachine:
    """Return a machine with a clock."""
    return FakeMachine()


def test_first_look_is_at_once(machine: FakeMachine) -> None:
    """What holds already is not waited for, even when no time is left."""
    wait_until(lambda: "", machine.deadline(0), "wait")
    assert machine.clock.now() == 0


def test_pauses_grow_up_to_the_longest(machine: FakeMachine) -> None:
    """Looks are close together at first, then rarer, and never later than the deadline."""
    looks: list[float] = []

    def look() -> str:
        looks.append(machine.clock.now())
        return "not yet"

    with pytest.raises(WaitTimeout, match="wait for x: not within 5 s") as caught:
        wait_until(look, machine.deadline(5), "wait for x")
    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert gaps[0] == pytest.approx(FIRST_PAUSE)
    assert max(gaps) == pytest.approx(LONGEST_PAUSE)
    assert gaps[:-1] == pytest.approx(sorted(gaps[:-1]))
    assert looks[-1] == pytest.approx(5)
    assert caught.value.details == "last seen: not yet"


def test_a_look_may_end_the_wait(machine: FakeMachine) -> None:
    """What a look raises is raised at once."""

    def look() -> str:
        if machine.clock.now() > 1:
            raise RuntimeError("dead")
        return "alive"

    with pytest.raises(RuntimeError, match="dead"):
        wait_until(look, machine.deadline(60), "wait")
    assert machine.clock.now() < 1 + LONGEST_PAUSE + FIRST_PAUSE


def test_deadline_is_shared(machine: FakeMachine) -> None:
    """What one wait uses up of a deadline is missing to the next; nothing is left of it in the end."""
    deadline = machine.deadline(3)
    machine.clock.advance(2)
    assert deadline.remaining == 1
    machine.clock.advance(2)
    assert deadline.remaining == 0
    assert not deadline.until(lambda: False)
    assert deadline.until(lambda: True)
