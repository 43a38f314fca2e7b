"""Rules about the stop of an instance: what each finds, and that a clean stop has no findings."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixproc.checks.api import StopReport
from pytest_nixproc.checks.leaks import nixproc_checks

RULES = {rule.code: rule for rule in nixproc_checks()}
WHEN = "while web was stopped"
FOUND: list[tuple[str, dict[str, Any], tuple[str, ...], str]] = [
    ("NP301", {"processes": {7: "sleep 9"}}, ("web",), f"NP301 error: process 7 of web still runs {WHEN}: sleep 9"),
    ("NP302", {"held": {"TCP port 80": "in use"}}, ("web",), f"NP302 error: TCP port 80 of web is held {WHEN}: in use"),
    ("NP303", {"pid_files": ("/s/p",)}, ("web",), f"NP303 warning: PID file /s/p of web is still there {WHEN}"),
    ("NP304", {"sockets": ("/s/s",)}, ("web",), f"NP304 warning: socket /s/s of web is still there {WHEN}"),
    ("NP305", {"ended": {"db": 8}}, ("web", "db"), f"NP305 error: db (pid 8) has ended {WHEN}"),
    ("NP306", {"unready": {"db": "no answer"}}, ("web", "db"), f"NP306 error: db is not ready {WHEN}: no answer"),
]


@pytest.mark.parametrize(("code", "seen", "instances", "text"), FOUND)
def test_rule_finds(code: str, seen: dict[str, Any], instances: tuple[str, ...], text: str) -> None:
    """A rule finds its case once, and no other rule does; the text says when, and what to change."""
    (finding,) = [finding for rule in RULES.values() for finding in rule.leak(StopReport("web", WHEN, **seen))]
    assert (finding.code, finding.instances, finding.severity) == (code, instances, RULES[code].severity)
    assert str(finding).startswith(text)
    assert "fix: " in str(finding)


def test_every_rule_is_tried() -> None:
    """There is an example for each rule."""
    assert {code for code, *_ in FOUND} == set(RULES)


def test_clean_stop_has_no_findings() -> None:
    """No rule finds anything where nothing is left and nobody is disturbed."""
    assert [finding for rule in RULES.values() for finding in rule.leak(StopReport("web", WHEN))] == []
