"""Models that Hypothesis draws: what is sound is deployed and passes, what is wrong is refused by the rule for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from pytest_nixproc import generated_files
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.instance import RunningInstance
from pytest_nixproc._system.system import System
from pytest_nixproc.checks.api import Rule, RuleInput
from pytest_nixproc.checks.rulebook import Rulebook
from pytest_nixproc.errors import ConflictError, UnknownName
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.package import PACKAGE_ROOT
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing import strategies
from pytest_nixproc.testing.programs.models import dump_of
from pytest_nixproc.testing.strategies import (
    CONFLICTS,
    Part,
    Sketch,
    chains,
    conflicting_models,
    deployable_models,
    diamonds,
    models,
)
from pytest_nixproc.values.findings import Finding
from pytest_nixproc.values.machine import Facts
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target

REGISTRY: Final = Registry()
STATE: Final = StateDirs.under("/srv/state")
FEW: Final = 5
MANY: Final = 100
"""How many models are really deployed: on each manager a few, on two of them many."""

DEPLOYED: Final = [
    *(pytest.param(manager, FEW, id=manager) for manager in REGISTRY.managers),
    pytest.param("supervisord", MANY, marks=pytest.mark.long, id="supervisord-many"),
    pytest.param("sysvinit", MANY, marks=pytest.mark.long, id="sysvinit-many"),
]


def codes_of(sketch: Sketch, rules: Iterable[Rule] = REGISTRY.rules) -> set[str]:
    """Return the rules that find something in a sketch."""
    target = Target(STATE, "/srv/profile", facts=Facts(package_root=PACKAGE_ROOT))
    plan = RuleInput(ProcessesModel(sketch.processes(STATE)), target)
    return {finding.code for finding in Rulebook(rules).static(plan)}


def expected_of(sketch: Sketch) -> set[str]:
    """Return the rules that have to find something."""
    return {sketch.verdict} - {""}


@pytest.mark.parametrize("examples", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_static_rules_agree_with_the_verdict(examples: int) -> None:
    """Nothing is found in a sound model; what is planted in another one is found by its rule, and by no other."""

    @settings(max_examples=examples)
    @given(models())
    def agrees(sketch: Sketch) -> None:
        assert codes_of(sketch) == expected_of(sketch)

    agrees()


@pytest.mark.parametrize("conflict", CONFLICTS, ids=lambda conflict: conflict.what)
def test_each_conflict_is_found(conflict: strategies.Conflict) -> None:
    """Each conflict is found between plain instances, whichever of them has which part of it."""
    parts = (Part("a"), Part("b", "daemon", 5000, needs=(0,)))
    for between in ((0, 1), (1, 0)):
        assert codes_of(Sketch(parts, conflict, between)) == {conflict.code}


@settings(max_examples=50)
@given(deployable_models())
def test_every_manager_has_files_for_sound_models(sketch: Sketch) -> None:
    """No manager refuses a name or a value."""
    assert generated_files(sketch.processes).keys() == REGISTRY.managers.keys()


def test_blind_rule_is_shown_by_the_smallest_model() -> None:
    """What a rule overlooks comes out as two plain instances, with nothing that does not belong to it."""
    seeing = [replace(rule, static=lambda _: ()) if rule.code == "NP104" else rule for rule in REGISTRY.rules]
    overlooked = find(
        conflicting_models(codes=["NP104", "NP105"]),
        lambda sketch: codes_of(sketch, seeing) != expected_of(sketch),
        settings=settings(max_examples=1000, phases=[Phase.generate, Phase.shrink]),
    )
    assert overlooked.verdict == "NP104"
    assert overlooked.parts == tuple(Part(part.name) for part in overlooked.parts)
    assert len(overlooked.parts) == 2


@settings(max_examples=10)
@given(conflicting_models(codes=["NP112"]))
def test_codes_choose_conflicts(sketch: Sketch) -> None:
    """Only conflicts of the rules that are asked for are planted."""
    assert sketch.verdict == "NP112"


def test_code_without_conflicts_is_an_error() -> None:
    """A rule that nothing can be planted for is told apart from those that there are."""
    with pytest.raises(UnknownName, match="'NP201'") as caught:
        conflicting_models(codes=["NP201"])
    assert "NP112" in caught.value.remedy


def test_shapes() -> None:
    """Chains and diamonds are what they are called, also where they are too small for it."""
    assert chains(3) == ((), (0,), (1,))
    assert diamonds(4) == ((), (0,), (0,), (1, 2))
    assert diamonds(2) == ((), (0,))
    assert diamonds(1) == ((),)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Return this machine."""
    machine = Host()
    yield machine
    machine.lifecycle.close()


def load(sketch: Sketch, context: ModelContext) -> ProcessesModel:
    """Return the model of a sketch at the place of its deployment."""
    return ProcessesModel(sketch.processes(context.state, context.free_port))


def told(running: RunningInstance, part: Part, state: StateDirs) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return which of a part's arguments and variables its process was given, once it has told everything."""
    running.wait_ready()
    dump: dict[str, Any] = json.loads(Path(dump_of(state, part.name)).read_text(encoding="utf-8"))
    words = [os.fsdecode(bytes.fromhex(word)) for word in dump["arguments"]]
    words = words[: -1 if words[-1] == "-D" else None]
    entries = (os.fsdecode(bytes.fromhex(entry)).partition("=") for entry in dump["environment"])
    return tuple(words[len(words) - len(part.args) :]), {name: value for name, _, value in entries}


@pytest.mark.timeout(600)  # a hundred deployments for some
@pytest.mark.parametrize(("manager", "examples"), DEPLOYED)
def test_sound_models_are_deployed_and_pass(manager: str, examples: int, host: Host) -> None:
    """Everything runs, no rule finds anything, and each value has arrived byte for byte."""
    if reason := REGISTRY.manager(manager).unavailable_reason(Host):
        pytest.skip(f"{manager} cannot run here: {reason}")

    @settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(deployable_models(largest=4))
    def passes(sketch: Sketch) -> None:
        system = System(Planner(REGISTRY.manager(manager), host, REGISTRY.rules, Settings()), Leases())
        system.start(lambda context: load(sketch, context))
        try:
            assert list(system.findings) == []
            for part in sketch.parts:
                args, environment = told(system[part.name], part, system.state)
                assert args == part.args
                assert part.variables.items() <= environment.items()
        finally:
            system.stop()

    passes()


@settings(max_examples=30)
@given(sketch=conflicting_models())
def test_wrong_models_are_refused(host: Host, sketch: Sketch) -> None:
    """A deployment of a model with a conflict is refused before anything is started, by the rule for it."""
    system = System(Planner(REGISTRY.manager("sysvinit"), host, REGISTRY.rules, Settings()), Leases())
    with pytest.raises(ConflictError) as caught:
        system.start(lambda context: load(sketch, context))
    assert {finding.code for finding in caught.value.findings if isinstance(finding, Finding)} == {sketch.verdict}
