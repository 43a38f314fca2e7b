"""How long the guardian waits for the recovery of deployments."""

from __future__ import annotations

import time

import pytest

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
