"""The timeline of a deployment."""

from __future__ import annotations

from pytest_nixproc._deployment.timeline import Event, Timeline
from pytest_nixproc.testing.fake_machine import FakeMachine


def test_events_have_times_since_the_beginning() -> None:
    """Events keep their order, and their times count from the beginning of the timeline."""
    machine = FakeMachine()
    machine.clock.advance(100)
    timeline = Timeline(machine.clock.now)
    timeline.add("start", "web")
    machine.clock.advance(1.5)
    timeline.add("ready", "web")
    timeline.add("start", "proxy")
    assert list(timeline) == [Event(0, "start", "web"), Event(1.5, "ready", "web"), Event(1.5, "start", "proxy")]
    assert (len(timeline), timeline.order("start"), timeline.order("stop")) == (3, ["web", "proxy"], [])
    assert str(timeline).splitlines()[1] == "   1.500 s  ready     web"
