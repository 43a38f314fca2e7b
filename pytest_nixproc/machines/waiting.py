"""The one way of waiting: look, and look again with growing pauses, until a monotonic deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from pytest_nixproc.errors import WaitTimeout

FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.1
GROWTH: Final = 1.05


class Clock(Protocol):
    """What waiting needs of a machine."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def pause(self, seconds: float) -> None:
        """Sleep for ``seconds`` at most; less when a process ends meanwhile."""


class Deadline:
    """A point in time that a whole operation shares."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds
        self._end = clock.now() + seconds

    @property
    def remaining(self) -> float:
        """Seconds that are left; 0 once the deadline is reached."""
        return max(0.0, self._end - self.clock.now())

    def pauses(self) -> Iterator[float]:
        """Pause once per step, each time a little longer; end when the deadline is reached."""
        pause = FIRST_PAUSE
        while remaining := self.remaining:
            self.clock.pause(min(pause, remaining))
            yield pause
            pause = min(pause * GROWTH, LONGEST_PAUSE)


def wait_until(look: Callable[[], str], deadline: Deadline, what: str) -> None:
    """Wait until ``look`` returns an empty text; before that, it returns what is still missing.

    The first look is at once. ``look`` may raise to end the wait. Raises
    :class:`~pytest_nixproc.errors.WaitTimeout` with the last thing seen.
    """
    if not (missing := look()):
        return
    for _ in deadline.pauses():
        if not (missing := look()):
            return
    raise WaitTimeout(f"{what}: not within {deadline.seconds:g} s", details=f"last seen: {missing}")
