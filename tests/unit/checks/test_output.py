"""Findings as text, JSON and SARIF; and which rules are chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_nixproc.checks.api import Rule, chosen
from pytest_nixproc.checks.output import FORMATS, facts_of, finding_from
from pytest_nixproc.errors import UnknownName
from pytest_nixproc.values.findings import Finding, Origin
from pytest_nixproc.values.location import Call, Location

HERE: Final = Location(str(Path.cwd() / "a model.py"), 3)
RULES: Final = [Rule("NP101", "ports differ", explanation="Why."), Rule("NP203", "none hides", severity="warning")]
FINDINGS: Final = [
    Finding(
        "NP101",
        "error",
        "a and b collide",
        ("a", "b"),
        (
            Origin("processes.a.port", 80, HERE),
            Origin("processes.b.port", 80, Location("/elsewhere/é.py", 1)),
            Origin("processes.b.pkg"),
            Origin("processes.c.port", 80, Location("/elsewhere/é.py", 9, (Call("server", "/elsewhere/kit.py", 7),))),
            "seen on the machine",
        ),
        "choose",
        "tcp port 80",
    ),
    Finding("X1", "warning", "odd \n \"quoted\" ' 'é", ()),
]


def sarif() -> Any:
    """Return the one run of the log."""
    (run,) = json.loads(FORMATS["sarif"](FINDINGS, RULES))["runs"]
    return run


def test_text_counts() -> None:
    """The text is that of the findings, and ends with their number."""
    lines = FORMATS["text"](FINDINGS, RULES).splitlines()
    assert lines[:2] == ["NP101 error: a and b collide", "    processes.a.port = 80 (a model.py:3)"]
    assert "    processes.b.pkg" in lines
    assert lines[-1] == "1 error and 1 warning"
    assert FORMATS["text"]([], RULES) == "no findings"


def test_json_says_everything() -> None:
    """JSON has the parts of each finding, and finding is made of it again."""
    document = json.loads(FORMATS["json"](FINDINGS, RULES))
    assert document["rules"][1] == {"code": "NP203", "asserts": "none hides", "severity": "warning"}
    assert document["findings"][0]["origins"] == [
        {"path": "processes.a.port", "value": 80, "file": HERE.file, "line": 3},
        {"path": "processes.b.port", "value": 80, "file": "/elsewhere/é.py", "line": 1},
        {"path": "processes.b.pkg"},
        {
            "path": "processes.c.port",
            "value": 80,
            "file": "/elsewhere/é.py",
            "line": 9,
            "via": [{"function": "server", "file": "/elsewhere/kit.py", "line": 7}],
        },
        {"text": "seen on the machine"},
    ]
    assert [finding_from(facts) for facts in document["findings"]] == FINDINGS


def test_odd_values_become_text() -> None:
    """A value that JSON does not know is told as text."""
    finding = Finding("X1", "error", "p", (), (Origin("a", Path("/x")), Origin("b", 1.5)))
    assert [origin["value"] for origin in facts_of(finding)["origins"]] == ["/x", "1.5"]


def test_sarif_locates() -> None:
    """The first line is a result's location, relative to the working directory where it lies below it."""
    first, second = sarif()["results"]
    assert (first["ruleId"], first["ruleIndex"], first["level"]) == ("NP101", 0, "error")
    physical = first["locations"][0]["physicalLocation"]
    assert physical == {
        "artifactLocation": {"uri": "a%20model.py", "uriBaseId": "WORKDIR"},
        "region": {"startLine": 3},
    }
    related, _ = first["relatedLocations"]
    assert related["physicalLocation"]["artifactLocation"] == {"uri": "file:///elsewhere/%C3%A9.py"}
    assert "Fix: choose" in first["message"]["text"]
    assert "ruleIndex" not in second
    assert second["locations"] == []


def test_sarif_describes_rules() -> None:
    """Each rule that was applied is described, with the level that it has by default."""
    first, second = sarif()["tool"]["driver"]["rules"]
    assert first["fullDescription"] == {"text": "Why."}
    assert second == {
        "id": "NP203",
        "shortDescription": {"text": "none hides"},
        "defaultConfiguration": {"level": "warning"},
    }


@pytest.mark.parametrize(
    ("select", "ignore", "codes"),
    [
        ((), (), ["NP101", "NP203"]),
        ((), ("NP101",), ["NP203"]),
        (("NP1",), (), ["NP101"]),
        ((), ("NP",), []),
        (("NP203",), ("NP",), ["NP203"]),
        (("NP",), ("NP2",), ["NP101"]),
    ],
)
def test_rules_are_chosen(select: tuple[str, ...], ignore: tuple[str, ...], codes: list[str]) -> None:
    """Rules are chosen by beginnings of their codes; of two that fit, the longer one decides."""
    assert [rule.code for rule in chosen(RULES, select, ignore)] == codes


def test_code_that_no_rule_has() -> None:
    """A code that no rule has is an error: a typing mistake would silence nothing."""
    with pytest.raises(UnknownName, match="unknown check 'NP9'"):
        chosen(RULES, ignore=["NP9"])
