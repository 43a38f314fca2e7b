"""Rules about a running system: for each, what it finds and what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.checks.api import FileChange, PidFileState, Snapshot
from pytest_nixproc.checks.claims import ResourceClaim
from pytest_nixproc.checks.live import nixproc_checks
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.findings import Origin
from pytest_nixproc.values.machine import Account, Listener, ProcessInfo
from pytest_nixproc.values.units import Status, Unit

RULES = {rule.code: rule for rule in nixproc_checks()}
LOCAL, WEB_PID, DB_PID, ALIEN_PID = "127.0.0.1", 10, 20, 666


def unit(name: str, *, pid_file: bool = True) -> Unit:
    """Return a unit, with a PID file or without."""
    return Unit(name, "daemon", f"/log/{name}", f"/run/{name}.pid" if pid_file else None, ())


def instance(name: str, port: int, parameters: dict[str, Any] | None = None, **attributes: Any) -> Instance:
    """Return an instance that declares a port."""
    process = create_managed_process(name=name, process="/bin/x", **(parameters or {}))
    return Instance(process, port=port, **attributes)


def seeing(*processes: ProcessInfo) -> dict[str, Any]:
    """Return what a snapshot says about processes, where everything may be written below ``/s``."""
    names = {WEB_PID: "web", DB_PID: "db"}
    return {
        "processes": [(names.get(process.main or 0, process.instance), process) for process in processes],
        "own_places": ("/s",),
    }


def listening(*holders: tuple[int, int | None, str | None], host: str = LOCAL) -> dict[str, Any]:
    """Return what a snapshot says about listeners: port, pid and owner of each."""
    return {"owners": {Listener(host, port, pid): owner for port, pid, owner in holders}}


def holding(contents: dict[str, str]) -> dict[str, Any]:
    """Return what a snapshot says about PID files: their contents, and the processes they name."""
    named = {name: int(content) for name, content in contents.items() if content.strip().isdigit()}
    return {"pid_files": contents, "named": named}


def told(content: str | None, owner: str | None, *others: str, is_required: bool = False) -> dict[str, Any]:
    """Return what a snapshot says about a PID file that web is told, and others maybe."""
    claims = [ResourceClaim(name, "pkg.args[1]", "/s/x", "/s/x", is_passed=True) for name in ("web", *others)]
    return {"referenced_pid_files": [PidFileState("/s/x", claims, content, owner, is_required)]}


STRICT = {"umask": "077", "directory": "/srv/x/"}
STRICT_MODEL = ProcessesModel({"web": instance("web", 80, STRICT), "db": instance("db", 81)})
TWO_ADDRESSES = ProcessesModel(
    {"web": instance("web", 80, bind_ip=LOCAL), "db": instance("db", 80, bind_ip="127.0.0.2")}
)
LOCAL_MODEL = ProcessesModel({"web": instance("web", 80, bind_ip=LOCAL), "db": instance("db", 81)})
FOREGROUND = {name: replace(unit(name), mode="foreground") for name in ("web", "db")}

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
            "fix: pass the port on",
        ],
    ),
    (
        "NP202",
        listening((80, DB_PID, "db"), DB),
        ("web", "db"),
        ["web declares TCP port 80, but db listens on it", "processes.web.port = 80", "fix: give each instance"],
    ),
    (
        "NP202",
        listening((80, ALIEN_PID, None), DB),
        ("web",),
        [
            "but process 666 (nc -l 80), which is not part of it, listens",
            "processes.web.port = 80",
            "fix: end that",
        ],
    ),
    (
        "NP202",
        listening((80, None, None), DB),
        ("web",),
        ["but a process of another user, which is not part of it", "processes.web.port = 80", "fix: end that"],
    ),
    (
        "NP202",
        {
            "model": TWO_ADDRESSES,
            "owners": {Listener(LOCAL, 80, WEB_PID): "web", Listener("127.0.0.2", 80, ALIEN_PID): None},
        },
        ("db",),
        ["db declares TCP port 80 of 127.0.0.2, but process 666 (nc -l 80)", "processes.db.port = 80", "fix: end that"],
    ),
    (
        "NP202",
        listening((80, DB_PID, "db"), (80, ALIEN_PID, None), DB),
        ("web", "db"),
        ["web declares TCP port 80, but db", "processes.web.port = 80", "fix:"],
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
        ["web has no PID file /run/web.pid", "fix: tell the program where, or set pid_file"],
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
            "fix: if the program changes its user by itself, leave user out",
        ],
    ),
    (
        "NP206",
        {"accounts": {"web": WWW}, "run_as": {"web": (900, 0)}},
        ("web",),
        ["web runs as user 900 and group 0, and not as", "processes.web.pkg.user", "fix:"],
    ),
]

FOUND += [
    (
        "NP214",
        {"file_changes": [FileChange("web", "/tmp/f", "named in its program")]},
        ("web",),
        [
            "NP214 warning: /tmp/f has changed since the system began to start, and seems to be web's",
            "the clue: named in its program",
            "who has written it cannot be seen",
            "fix: build",
        ],
    ),
    (
        "NP202",
        {"model": ProcessesModel({"web": instance("web", 80, udp_port=53), "db": instance("db", 81)})},
        ("web",),
        ["web declares UDP port 53, and nobody listens on it", "processes.web.udp_port = 53", "fix: pass"],
    ),
    (
        "NP203",
        {"owners": {Listener(LOCAL, 80, WEB_PID, "udp"): "web"}},
        ("web",),
        [
            "NP203 warning: web listens on UDP port 80, which it does not declare",
            "declare it: Instance(..., udp_ports=",
        ],
    ),
    (
        "NP204",
        told(f"{ALIEN_PID}\nmore", None),
        ("web",),
        [
            "PID file /s/x, which web is told, holds '666', which is no living process of web",
            "processes.web.pkg.args[1] = '/s/x'",
            "fix: have the program write it",
        ],
    ),
    (
        "NP204",
        told(None, None, is_required=True),
        ("web",),
        ["PID file /s/x, which web is told, does not exist", "processes.web.pkg.args[1]", "fix:"],
    ),
    (
        "NP205",
        told(f"{DB_PID}", "db", "db"),
        ("web", "db"),
        [
            "web and db are told the same PID file /s/x, and it is written",
            "processes.web.pkg.args[1]",
            "processes.db.pkg.args[1]",
            "fix: derive its path",
        ],
    ),
    (
        "NP207",
        {"model": LOCAL_MODEL, **listening((80, WEB_PID, "web"), DB, host="0.0.0.0")},  # noqa: S104 - nobody listens
        ("web",),
        ["NP207 warning: web listens on port 80 of all addresses", "processes.web.port = 80", "pass the address on"],
    ),
    (
        "NP208",
        seeing(ProcessInfo(WEB_PID, WEB_PID, written=("/s/f",)), ProcessInfo(DB_PID, DB_PID, written=("/s/f", "/s/g"))),
        ("web", "db"),
        [
            "NP208 error: web and db have the same file open for writing: /s/f",
            f"process {WEB_PID} of web",
            f"process {DB_PID} of db",
            "fix: derive its path from a parameter",
        ],
    ),
    (
        "NP208",
        seeing(
            ProcessInfo(WEB_PID, WEB_PID, written=("/s/f",), shares_files=False),
            ProcessInfo(DB_PID, DB_PID, written=("/s/f",), shares_files=False),
        ),
        ("web", "db"),
        ["have the same file open for writing: /s/f", "process", "process", "fix:"],
    ),
    (
        "NP209",
        seeing(ProcessInfo(WEB_PID, WEB_PID, written=("/s/f", "/tmp/f"))),
        ("web",),
        ["NP209 warning: web writes /tmp/f, outside", f"open for writing by process {WEB_PID}", "fix: build"],
    ),
    (
        "NP209",
        {**seeing(), "changed": {"db": ("/tmp/log",)}},
        ("db",),
        ["NP209 warning: db writes /tmp/log, outside", "named by the model, and changed since", "fix:"],
    ),
    (
        "NP210",
        {"model": STRICT_MODEL, **seeing(ProcessInfo(WEB_PID, WEB_PID, umask="0022"))},
        ("web",),
        ["NP210 warning: web has the umask 0022, and not 077", "processes.web.pkg.umask = '077'", "fix:"],
    ),
    (
        "NP211",
        {"model": STRICT_MODEL, "units": FOREGROUND, **seeing(ProcessInfo(WEB_PID, WEB_PID, directory="/"))},
        ("web",),
        ["NP211 warning: web works in /, and not in /srv/x/", "processes.web.pkg.directory", "fix:"],
    ),
    (
        "NP212",
        seeing(ProcessInfo(99, None, "web")),
        ("web",),
        ["NP212 warning: process 99 of web has left the tree of its main process", "fix:"],
    ),
    (
        "NP213",
        seeing(ProcessInfo(99, WEB_PID, is_zombie=True)),
        ("web",),
        ["NP213 warning: process 99 of web has ended, and its parent does not take notice", "fix:"],
    ),
]

NEAR_MISSES: list[tuple[str, dict[str, Any]]] = [
    ("NP201", {}),
    ("NP202", {}),
    ("NP202", listening(WEB, (80, ALIEN_PID, None), DB)),
    (
        "NP202",
        {
            "model": TWO_ADDRESSES,
            "owners": {Listener(LOCAL, 80, WEB_PID): "web", Listener("127.0.0.2", 80, DB_PID): "db"},
        },
    ),
    ("NP203", listening(WEB, DB, (99, ALIEN_PID, None))),
    ("NP203", {"owners": {Listener(LOCAL, 40000, WEB_PID, "udp"): "web"}, "client_ports": range(32768, 61000)}),
    ("NP204", {}),
    ("NP204", told(None, None)),
    ("NP204", told(f"{WEB_PID}", "web", is_required=True)),
    ("NP204", told("1", None, "db")),
    ("NP205", told(None, None, "db")),
    ("NP204", {"units": {"web": unit("web", pid_file=False), "db": unit("db")}, **holding({"db": f"{DB_PID}"})}),
    ("NP205", holding({"web": "", "db": ""})),
    ("NP206", {"accounts": {"web": WWW}, "run_as": {"web": (900, 901), "db": (0, 0)}}),
    ("NP206", {"accounts": {"web": WWW}}),
    ("NP207", {"model": LOCAL_MODEL}),
    ("NP207", listening((80, WEB_PID, "web"), DB, host="::")),
    ("NP208", seeing(ProcessInfo(WEB_PID, WEB_PID, written=("/s/f",)), ProcessInfo(11, WEB_PID, written=("/s/f",)))),
    (
        "NP208",
        seeing(
            ProcessInfo(WEB_PID, WEB_PID, written=("/var/f",), shares_files=False),
            ProcessInfo(DB_PID, DB_PID, written=("/var/f",), shares_files=False),
        ),
    ),
    ("NP209", seeing(ProcessInfo(WEB_PID, WEB_PID, written=("/s/f",)))),
    ("NP209", seeing(ProcessInfo(WEB_PID, WEB_PID, written=("/tmp/f",), shares_files=False))),
    (
        "NP210",
        {
            "model": STRICT_MODEL,
            **seeing(ProcessInfo(WEB_PID, WEB_PID, umask="0077"), ProcessInfo(11, WEB_PID, umask="0")),
        },
    ),
    ("NP210", {"model": STRICT_MODEL, **seeing(ProcessInfo(WEB_PID, WEB_PID))}),
    ("NP211", {"model": STRICT_MODEL, **seeing(ProcessInfo(WEB_PID, WEB_PID, directory="/"))}),
    (
        "NP211",
        {"model": STRICT_MODEL, "units": FOREGROUND, **seeing(ProcessInfo(WEB_PID, WEB_PID, directory="/srv/x"))},
    ),
    (
        "NP211",
        {
            "model": STRICT_MODEL,
            "units": FOREGROUND,
            "directories": {"web": "/mnt/x"},
            **seeing(ProcessInfo(WEB_PID, WEB_PID, directory="/mnt/x")),
        },
    ),
    ("NP212", seeing(ProcessInfo(WEB_PID, WEB_PID), ProcessInfo(99, WEB_PID))),
    (
        "NP214",
        {
            "file_changes": [FileChange("web", "/tmp/f", "x")],
            **seeing(ProcessInfo(WEB_PID, WEB_PID, written=("/tmp/f",))),
        },
    ),
    ("NP214", {"file_changes": [FileChange("web", "/tmp/f", "x")], "changed": {"web": ("/tmp/f",)}}),
    ("NP213", seeing(ProcessInfo(WEB_PID, WEB_PID))),
]


@pytest.mark.parametrize(("code", "changes", "instances", "lines"), FOUND)
def test_rule_finds(code: str, changes: dict[str, Any], instances: tuple[str, ...], lines: list[str]) -> None:
    """A rule finds its case once; the text names the instances, the values, and what to change."""
    (finding,) = RULES[code].live(replace(HEALTHY, **changes))
    assert finding.instances == instances
    text = str(finding).splitlines()
    assert len(text) == len(lines)
    assert [wanted for wanted, line in zip(lines, text, strict=True) if wanted not in line] == []


def test_values_of_the_model_have_their_line() -> None:
    """Where a finding names a value of the model, the file and the line that say it go with it."""
    findings = [finding for code, changes, *_ in FOUND for finding in RULES[code].live(replace(HEALTHY, **changes))]
    values = [origin for finding in findings for origin in finding.origins if str(origin).startswith("processes.")]
    assert {type(value) for value in values} == {Origin}
    assert [value for value in values if isinstance(value, Origin) and value.location is None] == []


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
