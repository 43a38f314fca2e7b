"""Rules about the place of a deployment: for each, what it finds and what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.checks.api import Plan
from pytest_nixproc.checks.claims import Neighbour
from pytest_nixproc.checks.place import nixproc_checks
from pytest_nixproc.errors import Unsupported
from pytest_nixproc.machines.api import Account, Facts
from pytest_nixproc.managers.api import Target
from pytest_nixproc.model.instance import Endpoint, Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel

RULES = {rule.code: rule for rule in nixproc_checks()}
STATE = StateDirs.under("/srv/state")
ME = Facts(account=Account("me", 1000, "us", 100))
USER = {"user": "www", "credentials": {"users": {"www": {"uid": 900}}, "groups": {"www": {"gid": 901}}}}


def folded(name: str) -> str:
    """Return a name as a manager writes it that knows no punctuation."""
    return name.replace("-", "_")


def plan(
    *names: str, facts: Facts | None = None, parameters: dict[str, Any] | None = None, pools: Any = None, **rest: Any
) -> Plan:
    """Return a plan of instances that are all alike but for their names."""
    privileged = rest.pop("privileged", False)
    target = Target(STATE, "/srv/profile", facts=facts or Facts(), force_disable_user_change=not privileged)
    port = {name: rest.pop(name) for name in ("port", "bind_address") if name in rest}
    instances = {
        name: Instance(create_managed_process(name=name, process="/bin/x", **(parameters or {})), **port)
        for name in names
    }
    return Plan(ProcessesModel(instances, id_resources=pools), target, **rest)


REFUSAL = Unsupported("x", "web", "it cannot be said", remedy="say something else")
PORTS = [
    ("web", Endpoint("port", 80)),
    ("web", Endpoint("dns_udp_port", 53, "udp")),
    ("db", Endpoint("port", 5432, address="127.0.0.1")),
]
OTHER = Neighbour("other.py", PORTS, {"/home/www": "web"}, {"user www": "uid 5"})
HOME = {"credentials": {"users": {"www": {"home_dir": "/home/www", "create_home_dir": True}}}}

FOUND: list[tuple[str, Plan, tuple[str, ...], str]] = [
    ("NP115", plan("a-b", "a_b", fold=folded), ("a-b", "a_b"), "would have the same name 'a_b' under their manager"),
    ("NP116", plan("web", refusals={"web": REFUSAL}), ("web",), "x cannot deploy 'web': it cannot be said"),
    (
        "NP117",
        plan("a", pools={"webPorts": {"min": 1, "max": 9}, "dbPorts": {"min": 9, "max": 20}}),
        (),
        "the pools webPorts and dbPorts both hold 9 to 9",
    ),
    ("NP119", plan("web", port=80, facts=ME), ("web",), "web declares tcp 80, and runs as me, who cannot listen on it"),
    ("NP119", plan("web", port=1023, parameters=USER, privileged=True), ("web",), "and runs as www, who cannot listen"),
    ("NP120", plan("a", port=80, neighbours=[OTHER]), ("a",), "a declares tcp 80, and so does web of other.py"),
    (
        "NP120",
        plan("a", port=5432, neighbours=[OTHER]),
        ("a",),
        "a declares tcp 5432, and db of other.py declares tcp 127.0.0.1:5432",
    ),
    (
        "NP120",
        plan("a", port=80, bind_address="10.0.0.1", neighbours=[OTHER]),
        ("a",),
        "a declares tcp 10.0.0.1:80, and web of other.py declares tcp 80",
    ),
    (
        "NP120",
        plan("a", parameters=HOME, neighbours=[OTHER]),
        ("a",),
        "a claims /home/www, and so does web of other.py",
    ),
    (
        "NP120",
        plan("a", parameters=USER, privileged=True, neighbours=[OTHER]),
        (),
        "user www gets uid 900 here and uid 5 in other.py",
    ),
]

NEAR_MISSES: list[tuple[str, Plan]] = [
    ("NP115", plan("a-b", "a_b")),
    ("NP115", plan("A", "a", fold=str.lower)),
    ("NP116", plan("web")),
    ("NP117", plan("a", pools={"webPorts": {"min": 1, "max": 8}, "dbPorts": {"min": 9, "max": 20}})),
    ("NP117", plan("a", pools={"webPorts": {"min": 1, "max": 9}, "uids": {"min": 1, "max": 9}})),
    ("NP119", plan("web", port=1024, facts=ME)),
    ("NP119", plan("web", port=80, facts=replace(ME, first_unprivileged_port=80))),
    ("NP119", plan("web", port=80, parameters=USER)),
    ("NP120", plan("a", port=81, parameters=USER, neighbours=[OTHER])),
    ("NP120", plan("a", port=53, neighbours=[OTHER])),
    ("NP120", plan("a", port=5432, bind_address="10.0.0.1", neighbours=[OTHER])),
    ("NP120", plan("a", port=80)),
]


@pytest.mark.parametrize(("code", "plan", "instances", "problem"), FOUND)
def test_rule_finds(code: str, plan: Plan, instances: tuple[str, ...], problem: str) -> None:
    """A rule finds its case once, names the instances, and says what to change."""
    (finding,) = RULES[code].static(plan)
    assert (finding.code, finding.severity) == (code, RULES[code].severity)
    assert finding.instances == instances
    assert problem in finding.problem
    assert finding.remedy


@pytest.mark.parametrize(("code", "plan"), NEAR_MISSES)
def test_rule_lets_pass(code: str, plan: Plan) -> None:
    """What only looks like a rule's case is not reported."""
    assert list(RULES[code].static(plan)) == []


def test_every_rule_is_tried() -> None:
    """There is an example and a near miss for each rule."""
    assert {code for code, *_ in FOUND} == {code for code, _ in NEAR_MISSES} == set(RULES)
