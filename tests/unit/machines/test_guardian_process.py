"""How long the guardian waits for the recovery of deployments."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_nixproc.machines.guardian import process
from pytest_nixproc.machines.guardian.process import RECOVERY_SECONDS, Guardian


def test_recovery_has_the_time_of_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each deployment has as long as its programs may take to stop, the last one first, besides what all share."""
    guardian = object.__new__(Guardian)
    guardian.guarded = {"/first": (["first"], 30.0), "/last": (["last"], 5.0)}
    limits: dict[str, float] = {}

    def run(argv: list[str], end: float) -> int:
        limits[argv[0]] = end
        return 0

    monkeypatch.setattr(guardian, "run", run)
    now = time.monotonic()
    assert guardian.recover(list(guardian.guarded)) == []
    assert limits == {
        "last": pytest.approx(now + RECOVERY_SECONDS + 5, abs=1),
        "first": pytest.approx(now + RECOVERY_SECONDS + 35, abs=1),
    }


@pytest.mark.parametrize(
    ("children", "alone"),
    [({7}, True), ({7, 8}, True), ({7, 9}, False), (set(), False)],
    ids=["one", "all", "more", "?"],
)
def test_templates_are_told_from_what_is_left(
    monkeypatch: pytest.MonkeyPatch, children: set[int], *, alone: bool
) -> None:
    """Where nothing but templates runs, nothing is left; where the kernel lists no children, that is not known."""
    guardian = object.__new__(Guardian)
    guardian.templates = cast("Any", SimpleNamespace(pids={7, 8}))
    monkeypatch.setattr(process, "children_of", lambda _: children)
    assert guardian.has_templates_alone() == alone
