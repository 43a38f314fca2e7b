"""What is known of instances while several threads start, stop and look at them."""

from __future__ import annotations

from threading import Event, Thread

from pytest_nixproc._deployment.context import EndRecord

LIMIT = 30


def test_what_was_seen_before_a_change_is_not_believed() -> None:
    """A look that began before somebody started or stopped an instance says nothing of it afterwards."""
    record = EndRecord()
    seen = dict(record.turns)
    with record.being_changed({"web"}), record.unchanged(dict(record.turns), ["web", "db"]) as names:
        assert names == ["db"]
    with record.unchanged(seen, ["web", "db"]) as names:
        assert names == ["db"]
    with record.unchanged(dict(record.turns), ["web", "db"]) as names:
        assert names == ["web", "db"]


def test_one_thread_changes_an_instance_after_another() -> None:
    """Whoever wants to change an instance waits for who does; another instance can be changed meanwhile."""
    record = EndRecord()
    other, same = Event(), Event()

    def change(name: str, is_done: Event) -> None:
        with record.being_changed({name}):
            is_done.set()

    threads = [Thread(target=change, args=given) for given in (("db", other), ("web", same))]
    with record.being_changed({"web"}), record.exclusively(["web"]):
        for thread in threads:
            thread.start()
        assert other.wait(LIMIT)
        assert not same.is_set()
        assert record.busy >= {"web"}
    for thread in threads:
        thread.join(LIMIT)
    assert same.is_set()
    assert not record.busy
