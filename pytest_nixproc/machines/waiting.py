"""The one way of waiting: look, and look again with growing pauses, until a monotonic deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from pytest_nixproc.errors import WaitTimeout
from pytest_nixproc.machines.shielding import is_given_up, refuse_given_up

FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.1
PATIENCE: Final = 0.025
"""Which part of the time that has been waited passes until the next look: so much later something may be seen."""


class Clock(Protocol):
    """The clock of a machine, as far as waiting needs it."""

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
        """Seconds that are left; 0 once the deadline is reached, and when nobody waits any more for what is done."""
        return 0.0 if is_given_up() else max(0.0, self._end - self.clock.now())

    def expire(self) -> None:
        """Reach the deadline now, which ends every wait for it, in any thread."""
        self._end = self.clock.now()

    def until(self, holds: Callable[[], bool]) -> bool:
        """Look until something holds, at first often and then ever less; tell whether it did before the deadline.

        The first look is at once. ``holds`` may raise to end the wait, and so does who gives it up.
        """
        refuse_given_up()
        if holds():
            return True
        begun = self.clock.now()
        while remaining := self.remaining:
            self.clock.pause(min(pause_after(self.clock.now() - begun), remaining))
            refuse_given_up()
            if holds():
                return True
        return False


def pause_after(seconds: float) -> float:
    """Return how long to pause before the next look, after a wait of ``seconds``."""
    return min(max(FIRST_PAUSE, PATIENCE * seconds), LONGEST_PAUSE)


def wait_until(look: Callable[[], str], deadline: Deadline, what: str) -> None:
    """Wait until ``look`` returns an empty text; any other text says why the wait goes on.

    The first look is at once. ``look`` may raise to end the wait. Raises
    :class:`~pytest_nixproc.errors.WaitTimeout` with the last thing seen.
    """
    missing = ""

    def holds() -> bool:
        nonlocal missing
        missing = look()
        return not missing

    if not deadline.until(holds):
        raise WaitTimeout(f"{what}: not within {deadline.seconds:g} s", details=f"last seen: {missing}")
