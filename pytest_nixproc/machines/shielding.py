"""Work that no exception of a signal handler reaches: handlers run in the main thread, so it is done in another one.

Ctrl-C, a time limit of pytest-timeout and the alarm of a test raise anywhere, in the middle of a message too, and what
they raise may look like an error of the operating system. Here, they end the wait for the work alone. The work is given
up then: its waits end, and it leaves everything in order.
"""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, ParamSpec, TypeVar

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")

TURN_SECONDS: Final = 0.1
"""How long work waits for who waits for it, before it looks whether it was given up."""

_current: Final = threading.local()


class GivenUp(BaseException):
    """Raised by the waits of work for whose result nobody waits any more."""


class Work(Generic[Result]):
    """Work in a thread of its own, and the calls that it wants to be made in the thread that waits for it."""

    def __init__(self, action: Callable[[], Result]) -> None:
        self.action = action
        self.is_given_up = False
        self.is_done = False
        self.error: BaseException | None = None
        self.result: list[Result] = []
        # Of C, so that an exception within one of its methods leaves it whole: a Condition's lock might stay locked.
        self.calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def carry_out(self) -> None:
        """Do the work; nothing is raised here."""
        _current.work = self
        try:
            self.result.append(self.action())
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self.error = error
        finally:
            self.is_done = True
            self.calls.put(None)

    def wait(self) -> None:
        """Make the calls that the work wants, until it is done; once it is given up, it wants none."""
        while not self.is_done and (call := self.calls.get()) is not None:
            if not self.is_given_up:
                call()


def shielded(action: Callable[[], Result], *, awaits_end: bool = False) -> Result:
    """Do something where no signal handler raises, and return its result; other threads than the main one just do it.

    An exception that comes meanwhile gives the action up. With ``awaits_end``, it is waited for all the same,
    unless a second one comes.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return action()
    work = Work(action)
    try:
        if not has_started(work):
            return action()
        work.wait()
    except BaseException:
        work.is_given_up = True
        if awaits_end:
            work.wait()
        raise
    if work.error is not None:
        raise work.error
    return work.result[0]


def has_started(work: Work[Any]) -> bool:
    """Start work; tell whether that was possible: there may be no more threads, or the interpreter is about to end."""
    try:
        # A Thread would be waited for, in Python, until it says that it runs.
        start_new_thread(work.carry_out, ())
    except RuntimeError:
        return False
    return True


def verb(method: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Have a method's work shielded."""

    @wraps(method)
    def carried_out(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        __tracebackhide__ = True
        return shielded(partial(method, *args, **kwargs))

    return carried_out


def to_its_end(method: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Have a method's work shielded, and its end waited for."""

    @wraps(method)
    def carried_out(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        __tracebackhide__ = True
        return shielded(partial(method, *args, **kwargs), awaits_end=True)

    return carried_out


def is_given_up() -> bool:
    """Tell whether nobody waits any more for what this thread does."""
    work = getattr(_current, "work", None)
    return work is not None and work.is_given_up


def refuse_given_up() -> None:
    """Raise :class:`GivenUp` if nobody waits any more for what this thread does."""
    if is_given_up():
        raise GivenUp


@contextmanager
def unhurried() -> Iterator[None]:
    """Go on to the end of a ``with`` block though it was given up: what is half done would be worse."""
    work, _current.work = getattr(_current, "work", None), None
    try:
        yield
    finally:
        _current.work = work


def in_calling_thread(function: Callable[[], Result]) -> Result:
    """Call a function of a user in the thread that has asked for the work: it may have things that no other can use.

    What is raised there that is no ``Exception`` ends the wait for the work.
    """
    work = getattr(_current, "work", None)
    if work is None:
        return function()
    outcome: SimpleQueue[tuple[list[Result], Exception | None]] = SimpleQueue()

    def call() -> None:
        try:
            outcome.put(([function()], None))
        except Exception as error:  # noqa: BLE001 - raised again where it was called for
            outcome.put(([], error))

    work.calls.put(call)
    while True:
        try:
            result, error = outcome.get(timeout=TURN_SECONDS)
        except Empty:
            refuse_given_up()
            continue
        if error is not None:
            raise error
        return result[0]
