"""Rules about a running system: for each, what it finds and what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.checks.api import Snapshot
from pytest_nixproc.checks.live import nixproc_checks
from pytest_nixproc.machines.api import Account, Listener
from pytest_nixproc.managers.api import Status, Unit
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel

RULES = {rule.code: rule for rule in nixproc_checks()}
LOCAL, WEB_PID, DB_PID, ALIEN_PID = "127.0.0.1", 10, 20, 666


def unit(name: str, *, pid_file: bool = True) -> Unit:
    """Return a unit, with a PID file or without."""
    return Unit(name, "daemon", f"/log/{name}", f"/run/{name}.pid" if pid_file else None, ())


def instance(name: str, port: int) -> Instance:
    """Return an instance that declares a port."""
    return Instance(create_managed_process(name=name, process="/bin/x"), port=port)


def listening(*holders: tuple[int, int | None, str | None]) -> dict[str, Any]:
    """Return what a snapshot says about listeners: port, pid and owner of each."""
    owners = {Listener(LOCAL, port, pid): owner for port, pid, owner in holders}
    return {"listeners": tuple(owners), "owners": owners}


def holding(contents: dict[str, str]) -> dict[str, Any]:
    """Return what a snapshot says about PID files: their contents, and the processes they name."""
    named = {name: int(content) for name, content in contents.items() if content.strip().isdigit()}
    return {"pid_files": contents, "named": named}


WWW = Account("www", 900, "team", 901)
WEB, DB = (80, WEB_PID, "web"), (81, DB_PID, "db")

HEALTHY = Snapshot(
    model=ProcessesModel({"web": instance("web", 80), "db": instance("db", 81)}),
    units={"web": unit("web"), "db": unit("db")},
    statuses={"web": Status(running=True, pid=WEB_PID), "db": Status(running=True, pid=DB_PID)},
    **holding({"web": f"{WEB_PID}\n", "db": f"{DB_PID}"}),
    members={WEB_PID: "web", DB_PID: "db"},
    commands={ALIEN_PID: "nc -l 80"},
    **listening(WEB, DB),
)

DEAD = {"web": Status(running=False, text="ended with status 3"), "db": Status(running=True, pid=DB_PID)}

FOUND: list[tuple[str, dict[str, Any], tuple[str, ...], list[str]]] = [
    ("NP201", {"statuses": DEAD}, ("web",), ["web does not run: ended with status 3"]),
    (
        "NP202",
        listening(DB),
        ("web",),
        [
            "web declares TCP port 80, and nobody listens on it",
            "processes.web.port = 80",
            "to mend it: pass the port on",
        ],
    ),
    (
        "NP202",
        listening((80, DB_PID, "db"), DB),
        ("web", "db"),
        ["web declares TCP port 80, but db listens on it", "processes.web.port = 80", "to mend it: give each instance"],
    ),
    (
        "NP202",
        listening((80, ALIEN_PID, None), DB),
        ("web",),
        [
            "but process 666 (nc -l 80), which is not part of it, listens",
            "processes.web.port = 80",
            "to mend it: end that",
        ],
    ),
    (
        "NP202",
        listening((80, None, None), DB),
        ("web",),
        ["but a process of another user, which is not part of it", "processes.web.port = 80", "to mend it: end that"],
    ),
    (
        "NP202",
        listening((80, DB_PID, "db"), (80, ALIEN_PID, None), DB),
        ("web", "db"),
        ["web declares TCP port 80, but db", "processes.web.port = 80", "to mend it"],
    ),
    (
        "NP203",
        listening(WEB, DB, (99, WEB_PID, "web")),
        ("web",),
        ["NP203 warning: web listens on TCP port 99, which it does not declare", "declare it: Instance(..., ports="],
    ),
    (
        "NP204",
        holding({"db": f"{DB_PID}"}),
        ("web",),
        ["web has no PID file /run/web.pid", "to mend it: tell the program where, or set pid_file"],
    ),
    (
        "NP204",
        holding({"web": f"{ALIEN_PID}", "db": f"{DB_PID}"}),
        ("web",),
        ["PID file /run/web.pid holds '666', which is no living process of web"],
    ),
    (
        "NP204",
        holding({"web": f"{DB_PID}", "db": f"{DB_PID}"}),
        ("web",),
        ["PID file /run/web.pid holds '20', which is no living process of web"],
    ),
    (
        "NP204",
        holding({"web": "x\n", "db": f"{DB_PID}"}),
        ("web",),
        ["PID file /run/web.pid holds 'x', which is no living process of web"],
    ),
    (
        "NP205",
        holding({"web": f"{DB_PID}\n", "db": f"{DB_PID}"}),
        ("web", "db"),
        ["the PID files of web and db name the same process 20"],
    ),
    (
        "NP206",
        {"accounts": {"web": WWW}, "run_as": {"web": (0, 901), "db": (0, 0)}},
        ("web",),
        [
            "web runs as user 0 and group 901, and not as user 900 (www) and group 901 (team)",
            "processes.web.pkg.user",
            "to mend it: if the program changes its user by itself, leave user out",
        ],
    ),
    (
        "NP206",
        {"accounts": {"web": WWW}, "run_as": {"web": (900, 0)}},
        ("web",),
        ["web runs as user 900 and group 0, and not as", "processes.web.pkg.user", "to mend it"],
    ),
]

NEAR_MISSES: list[tuple[str, dict[str, Any]]] = [
    ("NP201", {}),
    ("NP202", {}),
    ("NP202", listening(WEB, (80, ALIEN_PID, None), DB)),
    ("NP203", listening(WEB, DB, (99, ALIEN_PID, None))),
    ("NP204", {}),
    ("NP204", {"units": {"web": unit("web", pid_file=False), "db": unit("db")}, **holding({"db": f"{DB_PID}"})}),
    ("NP205", holding({"web": "", "db": ""})),
    ("NP206", {"accounts": {"web": WWW}, "run_as": {"web": (900, 901), "db": (0, 0)}}),
    ("NP206", {"accounts": {"web": WWW}}),
]


@pytest.mark.parametrize(("code", "changes", "instances", "lines"), FOUND)
def test_rule_finds(code: str, changes: dict[str, Any], instances: tuple[str, ...], lines: list[str]) -> None:
    """A rule finds its case once; the text names the instances, the values, and what to change."""
    (finding,) = RULES[code].live(replace(HEALTHY, **changes))
    assert finding.instances == instances
    text = str(finding).splitlines()
    assert len(text) == len(lines)
    assert [wanted for wanted, line in zip(lines, text, strict=True) if wanted not in line] == []


@pytest.mark.parametrize(("code", "changes"), NEAR_MISSES)
def test_rule_lets_pass(code: str, changes: dict[str, Any]) -> None:
    """What only looks like a rule's case is not reported."""
    assert list(RULES[code].live(replace(HEALTHY, **changes))) == []


def test_every_rule_is_tried() -> None:
    """There is an example and a near miss for each rule."""
    assert {code for code, *_ in FOUND} == {code for code, _ in NEAR_MISSES} == set(RULES)


def test_healthy_system_has_no_findings() -> None:
    """No rule finds anything in a healthy system, and no live rule looks at plans."""
    assert [finding for rule in RULES.values() for finding in rule.live(HEALTHY)] == []
    assert [rule.static(HEALTHY) for rule in RULES.values()] == [()] * len(RULES)  # type: ignore[arg-type]
