"""Signals that end pytest, while systems are up: each starts an orderly teardown instead of cutting it off."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM: pytest treats it like Ctrl-C, tearing all fixtures down."""


class Signals:
    """The handlers of the signals while something is up; the previous handlers are restored afterwards.

    Only a process's main thread can do that (signal(7)); elsewhere the guardian alone cleans up.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}
        self._uses = 0
        self._held_back = 0
        self._arrived: list[int] = []

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Turn the signals into exceptions for the time of a ``with`` block."""
        self._uses += 1
        if self._uses == 1:
            self._install()
        try:
            yield
        finally:
            self._uses -= 1
            while self._uses == 0 and self._previous:
                signal.signal(*self._previous.popitem())

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Hold signals back for the time of a ``with`` block, and raise for them at its end.

        A second signal of the same kind is not held back: whoever insists does not want to wait.
        """
        self._held_back += 1
        try:
            yield
        finally:
            self._held_back -= 1
            if not self._held_back and self._arrived:
                number, self._arrived = self._arrived[0], []
                self._raise(number, None)

    def _install(self) -> None:
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                try:
                    self._previous[number] = signal.signal(number, self._handle)
                except ValueError:
                    return

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._held_back and number not in self._arrived:
            self._arrived.append(number)
        else:
            self._raise(number, frame)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        previous: Callable[..., Any] | Any = self._previous.get(number)
        if callable(previous):
            previous(number, frame)
        else:
            raise Terminated(f"terminated by {signal.Signals(number).name}")
