"""Work beside the main thread: what an interrupt ends, and what not."""

from __future__ import annotations

import threading
from threading import Event, Thread, get_ident

import pytest

from pytest_nixproc.machines import shielding
from pytest_nixproc.machines.shielding import (
    GivenUp,
    in_calling_thread,
    is_given_up,
    refuse_given_up,
    shielded,
    to_its_end,
    unhurried,
)
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.testing.fake_machine import FakeMachine
from tests.interrupts import Interrupt, interrupted_everywhere

LIMIT = 30


def interrupt() -> None:
    """Raise in the thread that waits, as a signal handler would."""
    raise KeyboardInterrupt


def test_result_and_error_are_those_of_the_action() -> None:
    """Who waits for work gets its result, or the error that it has raised."""
    assert shielded(lambda: 3) == 3
    with pytest.raises(KeyError, match="it"):
        shielded(lambda: dict[str, int]()["it"])


def test_only_the_main_thread_is_left() -> None:
    """Signal handlers run in the main thread alone: work of another thread stays in it."""
    found: list[bool] = []
    thread = Thread(target=lambda: found.append(shielded(get_ident) == get_ident()))
    thread.start()
    thread.join()
    assert found == [True]
    assert shielded(get_ident) != get_ident()
    assert shielded(lambda: shielded(get_ident) == get_ident())


def test_interrupt_gives_the_work_up() -> None:
    """An exception in the thread that waits ends the waits of the work, and its deadlines are over."""
    ends: list[object] = []
    is_done = Event()

    def work() -> None:
        deadline = Deadline(FakeMachine().clock, LIMIT)
        try:
            in_calling_thread(interrupt)
        except GivenUp:
            ends.append(deadline.remaining)
            with pytest.raises(GivenUp):
                deadline.until(lambda: True)
            with unhurried():
                ends.append(deadline.until(lambda: True))
            is_done.set()

    with pytest.raises(KeyboardInterrupt):
        shielded(work)
    assert is_done.wait(LIMIT)
    assert ends == [0.0, True]


def test_end_is_waited_for() -> None:
    """What has to come to its end does, before the exception is raised."""
    steps: list[str] = []

    @to_its_end
    def work() -> None:
        with unhurried():
            steps.append("begun")
        try:
            in_calling_thread(interrupt)
        finally:
            steps.append("ended")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["begun", "ended"]


def test_functions_of_users_are_called_where_the_verb_was() -> None:
    """What work has called in the thread that waits has its result and errors, and can call for work itself."""
    assert shielded(lambda: in_calling_thread(get_ident)) == get_ident()
    assert shielded(lambda: in_calling_thread(lambda: shielded(lambda: 5))) == 5
    with pytest.raises(ZeroDivisionError):
        shielded(lambda: in_calling_thread(lambda: 1 / 0))


def test_without_threads_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, the caller's does the work."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(shielding, "start_new_thread", refuse)
    assert shielded(get_ident) == get_ident()


def test_exception_at_any_bytecode_leaves_the_next_work_sound() -> None:
    """Wherever an exception strikes, no lock stays held, and the next work has its own result."""
    lock = threading.Lock()

    def locked() -> int:
        with lock:
            refuse_given_up()
            return 7

    rounds = 0
    for _ in interrupted_everywhere(lambda: shielded(locked), 1):
        rounds += 1
        assert shielded(locked) == 7
    assert rounds > 20


def test_nothing_is_given_up_outside_of_work() -> None:
    """A thread that does nobody's work is waited for by nobody, and goes on."""
    assert not is_given_up()
    refuse_given_up()


def test_interrupt_is_an_error_of_the_system_by_its_type() -> None:
    """The tests of interrupts raise what could be mistaken."""
    assert issubclass(Interrupt, OSError)
