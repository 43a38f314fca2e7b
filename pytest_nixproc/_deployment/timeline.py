"""The timeline of a system: the events of its instances, with their times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Happening = Literal["start", "ready", "stop", "stopped"]


@dataclass(frozen=True)
class Event:
    """One event of an instance."""

    seconds: float
    """Seconds since the deployment began."""

    happening: Happening
    instance: str

    def __str__(self) -> str:
        return f"{self.seconds:8.3f} s  {self.happening:<8} {self.instance}"


class Timeline:
    """The events of a deployment, in the order in which they were observed."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._begin = now()
        self._events: list[Event] = []

    def add(self, happening: Happening, instance: str) -> None:
        """Record that something happened now."""
        self._events.append(Event(self._now() - self._begin, happening, instance))

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def order(self, happening: Happening) -> list[str]:
        """Return the instances to which something happened, in that order."""
        return [event.instance for event in self._events if event.happening == happening]

    def __str__(self) -> str:
        return "\n".join(map(str, self._events))
