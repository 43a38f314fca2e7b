"""Rules about the place of a deployment: for each, what it finds and what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.checks.api import RuleInput
from pytest_nixproc.checks.claims import OtherDeployment
from pytest_nixproc.checks.environment import nixproc_checks
from pytest_nixproc.errors import Unsupported
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.machine import Account, Facts
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target

RULES = {rule.code: rule for rule in nixproc_checks()}
STATE = StateDirs.under("/srv/state")
ME = Facts(account=Account("me", 1000, "us", 100))
USER = {"user": "www", "credentials": {"users": {"www": {"uid": 900}}, "groups": {"www": {"gid": 901}}}}


def normalized(name: str) -> str:
    """Return a name as a manager writes it that knows no punctuation."""
    return name.replace("-", "_")


def given(
    *names: str, facts: Facts | None = None, parameters: dict[str, Any] | None = None, pools: Any = None, **rest: Any
) -> RuleInput:
    """Return the input of rules: instances that are all alike but for their names."""
    privileged = rest.pop("privileged", False)
    target = Target(STATE, "/srv/profile", facts=facts or Facts(), force_disable_user_change=not privileged)
    port = {name: rest.pop(name) for name in ("port", "bind_address") if name in rest}
    instances = {
        name: Instance(create_managed_process(name=name, process="/bin/x", **(parameters or {})), **port)
        for name in names
    }
    return RuleInput(ProcessesModel(instances, id_resources=pools), target, **rest)


ROOT = {"user": "www", "credentials": {"users": {"www": {"uid": 0}}}}
REFUSAL = Unsupported("x", "web", "it cannot be said", remedy="say something else")
PORTS = [
    ("web", Endpoint("port", 80)),
    ("web", Endpoint("dns_udp_port", 53, "udp")),
    ("db", Endpoint("port", 5432, address="127.0.0.1")),
]
OTHER = OtherDeployment("other.py", PORTS, {"/home/www": "web"}, {"user www": "uid 5"})
HOME = {"credentials": {"users": {"www": {"home_dir": "/home/www", "create_home_dir": True}}}}
MANAGERS = ("supervisord", "sysvinit", "s6-rc")

FOUND: list[tuple[str, RuleInput, tuple[str, ...], str]] = [
    (
        "NP115",
        given("a-b", "a_b", normalize_name=normalized),
        ("a-b", "a_b"),
        "would have the same name 'a_b' under their manager",
    ),
    ("NP116", given("web", refusals={"web": REFUSAL}), ("web",), "x cannot deploy 'web': it cannot be said"),
    (
        "NP117",
        given("a", pools={"webPorts": {"min": 1, "max": 9}, "dbPorts": {"min": 9, "max": 20}}),
        (),
        "the pools webPorts and dbPorts both hold 9 to 9",
    ),
    (
        "NP119",
        given("web", port=80, facts=ME),
        ("web",),
        "web declares tcp 80, and runs as me, who cannot listen on it",
    ),
    (
        "NP119",
        given("web", port=1023, parameters=USER, privileged=True),
        ("web",),
        "and runs as www, who cannot listen",
    ),
    ("NP120", given("a", port=80, others=[OTHER]), ("a",), "a declares tcp 80, and so does web of other.py"),
    (
        "NP120",
        given("a", port=5432, others=[OTHER]),
        ("a",),
        "a declares tcp 5432, and db of other.py declares tcp 127.0.0.1:5432",
    ),
    (
        "NP120",
        given("a", port=80, bind_address="10.0.0.1", others=[OTHER]),
        ("a",),
        "a declares tcp 10.0.0.1:80, and web of other.py declares tcp 80",
    ),
    (
        "NP120",
        given("a", parameters=HOME, others=[OTHER]),
        ("a",),
        "a claims /home/www, and so does web of other.py",
    ),
    (
        "NP120",
        given("a", parameters=USER, privileged=True, others=[OTHER]),
        (),
        "user www gets uid 900 here and uid 5 in other.py",
    ),
    (
        "NP120",
        given("a", parameters=ROOT, privileged=True, others=[OTHER]),
        (),
        "user www gets uid 0 here and uid 5 in other.py",
    ),
    (
        "NP121",
        given("web", parameters={"overrides": {"Supervsord": {}, "sysvinit": {}}}, managers=MANAGERS),
        ("web",),
        "web has overrides for 'Supervsord', and no manager has that name",
    ),
]

NEAR_MISSES: list[tuple[str, RuleInput]] = [
    ("NP115", given("a-b", "a_b")),
    ("NP115", given("A", "a", normalize_name=str.lower)),
    ("NP116", given("web")),
    ("NP117", given("a", pools={"webPorts": {"min": 1, "max": 8}, "dbPorts": {"min": 9, "max": 20}})),
    ("NP117", given("a", pools={"webPorts": {"min": 1, "max": 9}, "uids": {"min": 1, "max": 9}})),
    ("NP119", given("web", port=1024, facts=ME)),
    ("NP119", given("web", port=80, facts=replace(ME, first_unprivileged_port=80))),
    ("NP119", given("web", port=80, parameters=USER)),
    ("NP120", given("a", port=81, parameters=USER, others=[OTHER])),
    ("NP120", given("a", port=53, others=[OTHER])),
    ("NP120", given("a", port=5432, bind_address="10.0.0.1", others=[OTHER])),
    ("NP120", given("a", port=80)),
    (
        "NP121",
        given("web", parameters={"overrides": {name: {} for name in (*MANAGERS, "runit", "s6")}}, managers=MANAGERS),
    ),
    ("NP121", given("web", parameters={"overrides": {"supervsord": {}}})),
]


@pytest.mark.parametrize(("code", "given", "instances", "problem"), FOUND)
def test_rule_finds(code: str, given: RuleInput, instances: tuple[str, ...], problem: str) -> None:
    """A rule finds its case once, names the instances, and says what to change."""
    (finding,) = RULES[code].static(given)
    assert (finding.code, finding.severity) == (code, RULES[code].severity)
    assert finding.instances == instances
    assert problem in finding.problem
    assert finding.remedy


@pytest.mark.parametrize(("code", "given"), NEAR_MISSES)
def test_rule_lets_pass(code: str, given: RuleInput) -> None:
    """What only looks like a rule's case is not reported."""
    assert list(RULES[code].static(given)) == []


def test_every_rule_is_tried() -> None:
    """There is an example and a near miss for each rule."""
    assert {code for code, *_ in FOUND} == {code for code, _ in NEAR_MISSES} == set(RULES)
