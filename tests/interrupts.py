"""Exceptions at any bytecode, as a signal handler may raise them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any


class Interrupt(TimeoutError):
    """What an alarm raises in a test: a kind of OSError, of which nobody may think that the system has raised it."""


def interrupted_everywhere(action: Callable[[], object], step: int) -> Iterator[None]:
    """Have an exception raised at each ``step``-th bytecode of an action, one a round; yield after each round."""
    for number in count(1, step):
        try:
            with_interrupt(action, number)
        except Interrupt:
            yield
        else:
            return


def with_interrupt(action: Callable[[], object], number: int) -> None:
    """Do something, in whose ``number``-th bytecode an exception is raised."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise Interrupt("raised by a test")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
