"""The timeline of a system: the events of its instances, with their times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from pytest_nixproc.values.value import Value

Happening = Literal["planned", "start", "spawned", "ready", "ended", "restarted", "stop", "stopped", "removed"]
"""What can happen to an instance, usually in this order.

``start`` and ``stop`` are asked of its manager; ``spawned`` says that the manager has done its part of the start.
``ended`` and ``restarted`` are what nobody has asked for, or a test behind the manager's back.
"""


class Event(Value):
    """One event of an instance."""

    seconds: float
    """Seconds since the deployment began."""

    happening: Happening
    instance: str
    detail: str = ""
    """How it happened, in words: ``ended with status 1``."""

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.seconds:8.3f} s  {self.happening:<9} {self.instance}{detail}"


class Timeline:
    """The events of a deployment, in the order in which they were observed."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._begin = now()
        self._events: list[Event] = []

    def add(self, happening: Happening, instance: str, detail: str = "") -> None:
        """Record that something happened now."""
        self._events.append(Event(self._now() - self._begin, happening, instance, detail))

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def since(self, happening: Happening, instance: str) -> float | None:
        """Return the seconds since something happened to an instance last; None if it never has."""
        times = [event.seconds for event in self._events if (event.happening, event.instance) == (happening, instance)]
        return self._now() - self._begin - times[-1] if times else None

    def order(self, happening: Happening) -> list[str]:
        """Return the instances to which something happened, in that order."""
        return [event.instance for event in self._events if event.happening == happening]

    def __str__(self) -> str:
        return "\n".join(map(str, self._events))
