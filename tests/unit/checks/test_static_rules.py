"""Rules about a model: for each, what it finds and what it lets pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.checks import accounts, static
from pytest_nixproc.checks.api import Rule, RuleInput
from pytest_nixproc.model.credentials import Credentials, Group, User
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.findings import Finding, errors_of
from pytest_nixproc.values.location import Location
from pytest_nixproc.values.machine import Account, Accounts
from pytest_nixproc.values.target import Target

RULES = {rule.code: rule for rule in (*static.nixproc_checks(), *accounts.nixproc_checks())}


def instance(name: str, parameters: dict[str, Any] | None = None, **attributes: Any) -> Instance:
    """Return an instance of a process."""
    return Instance(create_managed_process(**{"name": name, "process": "/bin/x"} | (parameters or {})), **attributes)


def home(path: str, *, create: bool = True) -> dict[str, Any]:
    """Return parameters with one home directory."""
    return {"credentials": Credentials(users={"u": User(home_dir=path, create_home_dir=create)})}


def ids(uid: int | None = None, gid: int | None = None) -> dict[str, Any]:
    """Return parameters with one user and one group."""
    return {"credentials": Credentials(users={"u": User(uid=uid)}, groups={"g": Group(gid=gid)})}


def user(**attributes: Any) -> dict[str, Any]:
    """Return parameters with one user."""
    return {"credentials": Credentials(users={"u": User(**attributes)})}


PID: dict[str, Any] = {"pid_file": "/srv/state/run/x.pid"}
NO_STATE: dict[str, Any] = {"environment": {"CONFIG": "/var/lib/x"}}
TOLD: dict[str, Any] = {"environment": {"PORT": 80}}
EXTRA: dict[str, Any] = {"foreground_process_extra_args": ["/run/x"], "daemon_extra_args": ["/var/x"]}

# Code, instances, what each line of the finding has to hold: the problem, the origins, the remedy.
FOUND: list[tuple[str, dict[str, Instance], list[str]]] = [
    (
        "NP101",
        {"a": instance("a", port=80), "b": instance("b", ports={"admin": 80})},
        [
            "NP101 error: a and b declare the same TCP port 80",
            "processes.a.port = 80",
            "processes.b.ports.admin = 80",
            "fix: give each instance its own port",
        ],
    ),
    (
        "NP102",
        {"a": instance("a", PID), "b": instance("b", {"pid_file": "/srv/state/run/../run/x.pid"})},
        [
            "NP102 error: a and b have the same PID file /srv/state/run/x.pid",
            "processes.a.pkg.pid_file = '/srv/state/run/x.pid'",
            "processes.b.pkg.pid_file = '/srv/state/run/../run/x.pid'",
            "fix: give each instance its own instance_name or pid_file",
        ],
    ),
    (
        "NP102",
        {"a": instance("a", {"instance_name": "x"}), "b": instance("x")},
        [
            "NP102 error: a and b have the same PID file /srv/state/run/x.pid",
            "processes.a.pkg.instance_name = 'x'",
            "processes.b.pkg.name = 'x'",
            "fix:",
        ],
    ),
    (
        "NP103",
        {"a": instance("a", {"instance_name": "x"}), "b": instance("b", {"instance_name": "x"})},
        [
            "NP103 error: a and b have the same log file /srv/state/log/nixproc-x.log",
            "processes.a.pkg.instance_name = 'x'",
            "processes.b.pkg.instance_name = 'x'",
            "fix: give each its own instance_name",
        ],
    ),
    (
        "NP104",
        {"a": instance("a", socket_file="/srv/state/s"), "b": instance("b", socketFile="/srv/state//s")},
        [
            "NP104 error: a and b claim the same path /srv/state/s",
            "processes.a.socket_file = '/srv/state/s'",
            "processes.b.socket_file = '/srv/state//s'",
            "fix: derive the path from the instance's name",
        ],
    ),
    (
        "NP102",
        {
            "a": instance("a", {"environment": {"PID_FILE": "/p"}}),
            "b": instance("b", {"environment": {"PIDFILE": "/p"}}),
        },
        [
            "NP102 error: a and b have the same PID file /p",
            "processes.a.pkg.environment.PID_FILE = '/p'",
            "processes.b.pkg.environment.PIDFILE = '/p'",
            "fix:",
        ],
    ),
    (
        "NP104",
        {"a": instance("a", home("/home/u")), "b": instance("b", data_dir="/home/u")},
        [
            "NP104 error: a and b claim the same path /home/u",
            "processes.a.pkg.credentials.users.u.home_dir = '/home/u'",
            "processes.b.data_dir = '/home/u'",
            "fix:",
        ],
    ),
    (
        "NP105",
        {"a": instance("web"), "b": instance("Web")},
        [
            "NP105 error: a and b have the same name 'web'",
            "processes.a.pkg.name = 'web'",
            "processes.b.pkg.name = 'Web'",
            "fix: pass a suffix on",
        ],
    ),
    (
        "NP106",
        {"a": instance("a", ids(uid=5)), "b": instance("b", ids(uid=6))},
        [
            "NP106 error: a and b give user 'u' a different uid",
            "processes.a.pkg.credentials.users.u.uid = 5",
            "processes.b.pkg.credentials.users.u.uid = 6",
            "fix: describe one account in one way",
        ],
    ),
    (
        "NP107",
        {"a": instance("a", {"pid_file": "/srv/state/../a.pid"})},
        [
            "NP107 error: a has its PID file outside the state",
            "processes.a.pkg.pid_file = '/srv/state/../a.pid'",
            "fix: build it from state.runtime_dir or state.tmp_dir",
        ],
    ),
    (
        "NP108",
        {"a": instance("a", NO_STATE)},
        [
            "NP108 warning: a mentions a path outside the state",
            "processes.a.pkg.environment.CONFIG = '/var/lib/x'",
            "fix: build it from the state directories",
        ],
    ),
    (
        "NP101",
        {"a": instance("a", udp_port=53), "b": instance("b", udp_ports={"dns": 53}, bind_ip="127.0.0.1")},
        [
            "NP101 error: a and b declare the same UDP port 53",
            "processes.a.udp_port = 53",
            "processes.b.udp_ports.dns = 53",
            "fix: give each instance its own port",
        ],
    ),
    (
        "NP103",
        {
            "a": instance("a", {"args": ["--log-file", "/srv/state/x.log"]}),
            "b": instance("b", {"environment": {"WEB_LOGFILE": "/srv/state/x.log"}}),
        },
        [
            "NP103 error: a and b have the same log file /srv/state/x.log",
            "processes.a.pkg.args[1] = '/srv/state/x.log'",
            "processes.b.pkg.environment.WEB_LOGFILE = '/srv/state/x.log'",
            "fix:",
        ],
    ),
    (
        "NP104",
        {
            "a": instance("a", {"environment": {"PGDATA": "/srv/state/lib"}}),
            "b": instance("b", {"args": ["--dbpath=/srv/state/lib"]}),
        },
        [
            "NP104 error: a and b claim the same path /srv/state/lib",
            "processes.a.pkg.environment.PGDATA = '/srv/state/lib'",
            "processes.b.pkg.args[0] = '/srv/state/lib'",
            "fix:",
        ],
    ),
    (
        "NP111",
        {"a": instance("a", TOLD, port=80), "b": instance("b", {"args": ["--port", "80"]}, port=81)},
        [
            "NP111 error: a and b are both told or declare to listen on port 80",
            "processes.a.port = 80",
            "processes.b.pkg.args[1] = '80'",
            "fix: pass the instance's own port on to its program",
        ],
    ),
    (
        "NP111",
        {"a": instance("a", TOLD), "b": instance("b", TOLD)},
        [
            "NP111 error: a and b are both told",
            "processes.a.pkg.environment.PORT = '80'",
            "processes.b.pkg.environment.PORT = '80'",
            "fix:",
        ],
    ),
    (
        "NP112",
        {"a": instance("a", socket=f"/srv/state/{'x' * 100}")},
        [
            "NP112 error: a has a socket whose path has 111 bytes, more than the 107",
            "processes.a.socket = '/srv/state/xxx",
            "fix: choose a shorter name",
        ],
    ),
    (
        "NP112",
        {"a": instance("a", {"args": ["--socket", f"/srv/state/{'x' * 95}"]})},
        [
            "NP112 warning: a has a socket whose path has 106 bytes, more than the 103 of macOS and BSD",
            "processes.a.pkg.args[1] = '/srv/state/xxx",
            "fix:",
        ],
    ),
    (
        "NP104",
        {name: instance(name, {"files": {"/srv/state/run/f": f"listen {name}"}}) for name in "ab"},
        [
            "NP104 error: a and b describe different files at /srv/state/run/f",
            "processes.a.pkg.files = '/srv/state/run/f'",
            "processes.b.pkg.files = '/srv/state/run/f'",
            "fix: derive the path from the instance's name",
        ],
    ),
    (
        "NP113",
        {"a": instance("a", data_dir="/srv/state/db"), "b": instance("b", socket="/srv/state/db/b/s")},
        [
            "NP113 error: a and b claim /srv/state/db and /srv/state/db/b/s, which lies in it",
            "processes.a.data_dir = '/srv/state/db'",
            "processes.b.socket = '/srv/state/db/b/s'",
            "fix: give each instance a directory of its own",
        ],
    ),
    (
        "NP114",
        {
            "a": instance("a", {"credentials": Credentials(users={"u": User(uid=5)})}),
            "b": instance("b", {"credentials": Credentials(users={"v": User(uid=5)})}),
        },
        [
            "NP114 error: 'u' and 'v' have the same uid 5",
            "processes.a.pkg.credentials.users.u.uid = 5",
            "processes.b.pkg.credentials.users.v.uid = 5",
            "fix: give each account its own number",
        ],
    ),
    (
        "NP118",
        {"app": instance("app", {"args": ["--db=tcp://127.0.0.1:5432/x"]}), "db": instance("db", port=5432)},
        [
            "NP118 warning: app is told where db listens, and does not depend on it",
            "processes.app.pkg.args[0] = 'tcp://127.0.0.1:5432/x'",
            "fix: add db to its dependencies",
        ],
    ),
    (
        "NP109",
        {"a": instance("a", {"user": "missing"})},
        [
            "NP109 error: user 'missing' is neither described in the model nor known to the machine",
            "processes.a.pkg.user = 'missing'",
            "fix: describe it: credentials={'users': {'missing': {...}}}",
        ],
    ),
    (
        "NP109",
        {"a": instance("a", {"user": "12"})},
        [
            "NP109 error: user '12' is a number, which tools take for an id",
            "processes.a.pkg.user = '12'",
            "fix: choose another name",
        ],
    ),
    (
        "NP109",
        {"a": instance("a", user(extra_groups=("old", "missing")))},
        [
            "NP109 error: group 'missing' is neither described in the model nor known to the machine",
            "processes.a.pkg.credentials.users.u.extra_groups[1] = 'missing'",
            "fix: describe it",
        ],
    ),
    (
        "NP109",
        {"a": instance("a", {"user": "u", **user(create_home_dir_only=True)})},
        ["NP109 error: user 'u' is neither described", "processes.a.pkg.user = 'u'", "fix: describe it"],
    ),
    (
        "NP110",
        {"a": instance("a", {"credentials": Credentials(users={"old": User(uid=5)})})},
        [
            "NP110 warning: user 'old' exists already, and its uid is 900; it is used so",
            "processes.a.pkg.credentials.users.old.uid = 5",
            "fix: leave the id out",
        ],
    ),
    (
        "NP110",
        {"a": instance("a", {"credentials": Credentials(groups={"old": Group(gid=0)})})},
        [
            "NP110 warning: group 'old' exists already, and its gid is 901; it is used so",
            "processes.a.pkg.credentials.groups.old.gid = 0",
            "fix: leave the id out",
        ],
    ),
]

NEAR_MISSES: list[tuple[str, dict[str, Instance]]] = [
    ("NP101", {"a": instance("a", port=80, admin_port=80), "b": instance("b", port=81, size=80)}),
    ("NP102", {"a": instance("a", {"user": "u", "instance_name": "x"}), "b": instance("b", {"instance_name": "x"})}),
    ("NP103", {"a": instance("a", PID), "b": instance("b", PID)}),
    (
        "NP104",
        {"a": instance("a", home("/dev/null", create=False)), "b": instance("b", home("/dev/null", create=False))},
    ),
    ("NP104", {"a": instance("a", socket="/s"), "b": instance("b", socket="/s2", documents="/s")}),
    ("NP104", {name: instance(name, {"files": {"/srv/state/run/f": "the same"}}) for name in "ab"}),
    ("NP104", {"db": instance("db", socket="/s"), "app": instance("app", {"environment": {"DB_SOCKET": "/s"}})}),
    ("NP105", {"a": instance("web1"), "b": instance("web2")}),
    ("NP106", {"a": instance("a", ids(uid=5, gid=6)), "b": instance("b", ids(uid=5)), "c": instance("c", ids())}),
    ("NP106", {"a": instance("a", user(home_dir="/srv/u")), "b": instance("b", user(description="U"))}),
    ("NP109", {"a": instance("a", {"user": "old"}), "b": instance("b", {"user": "u"}), "c": instance("c", user())}),
    ("NP109", {"a": instance("a", user(group="old", extra_groups=("root",)))}),
    ("NP109", {"a": instance("a", user(create_home_dir_only=True, group="missing"))}),
    ("NP110", {"a": instance("a", {"credentials": Credentials(users={"old": User(uid=900), "new": User(uid=5)})})}),
    ("NP101", {"a": instance("a", port=80), "b": instance("b", udp_port=80)}),
    (
        "NP101",
        {
            "a": instance("a", port=80, bind_address="127.0.0.1"),
            "b": instance("b", http_port=80, http_bind_ip="127.0.0.2", bind_ip="127.0.0.1"),
        },
    ),
    ("NP104", {name: instance(name, runtime_dir="/srv/state/run", cache_dir="relative") for name in "ab"}),
    ("NP111", {"a": instance("a", TOLD, port=80), "b": instance("b", {"args": ["--port"]}, port=81)}),
    ("NP111", {"a": instance("a", port=80), "b": instance("b", {**TOLD, "dependencies": ["a"]}, port=81)}),
    ("NP111", {name: instance(name, {"environment": {"DB_PORT": 5432}}) for name in "ab"}),
    ("NP112", {"a": instance("a", socket=f"/srv/state/{'x' * 92}", document=f"/{'x' * 200}")}),
    ("NP113", {"a": instance("a", data_dir="/srv/state/db", socket="/srv/state/db/s"), "b": instance("b")}),
    ("NP113", {"a": instance("a", data_dir="/srv/state/db"), "b": instance("b", data_dir="/srv/state/db2")}),
    (
        "NP113",
        {
            "a": instance("a", socket="/srv/state/s"),
            "b": instance("b", {"environment": {"LISTEN_SOCKET": "/srv/state/s/x"}}),
        },
    ),
    ("NP114", {"a": instance("a", ids(uid=5, gid=5)), "b": instance("b", ids(uid=5))}),
    (
        "NP118",
        {
            "db": instance("db", {"args": ["127.0.0.1:5432"]}, port=5432),
            "app": instance("app", {"args": ["127.0.0.1:5432"], "dependencies": ["db"]}, port=80),
            "far": instance("far", {"args": ["10.0.0.1:5432", "127.0.0.1:99999"]}),
        },
    ),
    (
        "NP118",
        {
            "db": instance("db", {"args": ["127.0.0.1:80"]}, port=5432),
            "app": instance("app", {"dependencies": ["db"]}),
            "web": instance("web", {"args": ["127.0.0.1:5432"], "dependencies": ["app"]}, port=80),
        },
    ),
    (
        "NP104",
        {
            "db": instance("db", socket="/s"),
            "app": instance("app", {"dependencies": ["db"]}),
            "web": instance("web", {"environment": {"SOCKET": "/s"}, "dependencies": ["app"]}),
        },
    ),
    ("NP107", {"a": instance("a", PID), "b": instance("b", {"user": "u"})}),
    ("NP108", {"a": instance("a", {"args": ["/tmp/program", "/srv/state/x", "run/x"]})}),
    ("NP108", {"a": instance("a", {"environment": {"X": "/srv/state/x", "Y": "/usr/x", "Z": "/variable"}})}),
]


@pytest.fixture
def find(target: Target) -> Any:
    """Return a function that applies one rule to instances, where users are changed and two accounts exist."""
    known = Accounts({"old": Account("old", 900, "old", 901)}, {"old": 901, "root": 0})
    privileged = replace(target, force_disable_user_change=False, accounts=known)

    def find(code: str, instances: dict[str, Instance]) -> Iterator[Finding]:
        return iter(RULES[code].static(RuleInput(ProcessesModel(instances), privileged)))

    return find


@pytest.mark.parametrize(("code", "instances", "lines"), FOUND)
def test_rule_finds(find: Any, code: str, instances: dict[str, Instance], lines: list[str]) -> None:
    """A rule finds its case once; the text names the instances, each value's origin, and what to change."""
    (finding,) = find(code, instances)
    assert finding.instances == tuple(instances)
    text = [line.strip() for line in str(finding).splitlines()]
    assert [wanted for wanted, line in zip(lines, text, strict=True) if not line.startswith(wanted)] == []


@pytest.mark.parametrize(("code", "instances"), NEAR_MISSES)
def test_rule_lets_pass(find: Any, code: str, instances: dict[str, Instance]) -> None:
    """What only looks like a rule's case is not reported."""
    assert list(find(code, instances)) == []


def test_every_rule_is_tried() -> None:
    """There is an example and a near miss for each rule."""
    assert {code for code, *_ in FOUND} == {code for code, _ in NEAR_MISSES} == set(RULES)
    assert all(isinstance(rule, Rule) and rule.asserts for rule in RULES.values())


def test_three_are_one_finding(find: Any) -> None:
    """A value that three instances claim is one finding, which names all of them."""
    (finding,) = find("NP101", {name: instance(name, port=80) for name in "abc"})
    assert finding.problem == "a and b and c declare the same TCP port 80"
    assert len(finding.origins) == 3


def test_groups_have_ids_too(find: Any) -> None:
    """A group with two ids is found like a user."""
    (finding,) = find("NP106", {"a": instance("a", ids(gid=5)), "b": instance("b", ids(gid=6))})
    assert "processes.b.pkg.credentials.groups.g.gid = 6" in str(finding)


@pytest.mark.parametrize("code", ["NP109", "NP110"])
def test_accounts_do_not_matter_where_users_are_not_changed(target: Target, code: str) -> None:
    """What is found about accounts of the machine is found where they would be used, and only there."""
    model = ProcessesModel({"a": instance("a", {"user": "missing", **user(uid=5, group="missing")})})
    assert list(RULES[code].static(RuleInput(model, target))) == []


def test_mentioned_path_names_its_parameter(find: Any) -> None:
    """A finding about an argument names the parameter that holds it."""
    origins = [str(finding.origins[0]).partition(" = ")[0] for finding in find("NP108", {"a": instance("a", EXTRA)})]
    assert origins == ["processes.a.pkg.foreground_process_extra_args[0]", "processes.a.pkg.daemon_extra_args[0]"]


@pytest.mark.parametrize(
    ("file", "is_found"),
    [
        ("/var/lib/ci/tests/processes.py", False),
        ("/var/lib/ci/processes.py", False),
        ("/var/lib/processes.py", True),
        ("/var/lib/other/processes.py", True),
        ("/home/ci/processes.py", True),
        ("processes.py", True),
    ],
)
def test_state_elsewhere_and_the_project(target: Target, file: str, *, is_found: bool) -> None:
    """What lies in the project of the file that names it is no state, wherever the project lies."""
    instances = {"a": instance("a", {"args": ["/var/lib/ci/bin/server"]})}
    model = ProcessesModel(instances, locate=lambda *_: Location(file, 1))
    assert bool(list(RULES["NP108"].static(RuleInput(model, target)))) is is_found
    installed = replace(target, facts=replace(target.facts, package_root="/var/lib/ci/.venv/lib"))
    assert not list(RULES["NP108"].static(RuleInput(model, installed)))


def test_errors_are_told_from_warnings() -> None:
    """Only errors forbid a deployment."""
    error, warning = Finding("X1", "error", "p", ()), Finding("X2", "warning", "p", ())
    assert errors_of([warning, error]) == [error]
