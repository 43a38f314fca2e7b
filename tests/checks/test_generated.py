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
from pytest_nixproc.checks.api import Finding, Plan, Rule, static_findings
from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.planner import Planner, Settings
from pytest_nixproc.deployment.system import RunningInstance, System
from pytest_nixproc.errors import ConflictError, UnknownName
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Target
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.registry import Registry
from pytest_nixproc.sources.api import Arguments
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

REGISTRY: Final = Registry()
STATE: Final = StateDirs.under("/srv/state")
DEPLOYED: Final = {"supervisord": 100, "sysvinit": 100}
"""How many models are really deployed; on other managers, a few."""

FEW: Final = 10


def codes_of(sketch: Sketch, rules: Iterable[Rule] = REGISTRY.rules) -> set[str]:
    """Return the rules that find something in a sketch."""
    plan = Plan(ProcessesModel(sketch.processes(STATE)), Target(STATE, "/srv/profile"))
    return {finding.code for finding in static_findings(rules, plan)}


def expected_of(sketch: Sketch) -> set[str]:
    """Return the rules that have to find something."""
    return {sketch.verdict} - {""}


@settings(max_examples=1000)
@given(models())
def test_static_rules_agree_with_the_verdict(sketch: Sketch) -> None:
    """Nothing is found in a sound model; what is planted in another one is found by its rule, and by no other."""
    assert codes_of(sketch) == expected_of(sketch)


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
    machine.close()


def load(sketch: Sketch, arguments: Arguments) -> ProcessesModel:
    """Return the model of a sketch at the place of its deployment."""
    return ProcessesModel(sketch.processes(arguments.state, arguments.free_port))


def told(running: RunningInstance, part: Part, state: StateDirs) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return which of a part's arguments and variables its process was given, once it has told everything."""
    running.wait_ready()
    dump: dict[str, Any] = json.loads(Path(dump_of(state, part.name)).read_text(encoding="utf-8"))
    words = [os.fsdecode(bytes.fromhex(word)) for word in dump["arguments"]]
    words = words[: -1 if words[-1] == "-D" else None]
    entries = (os.fsdecode(bytes.fromhex(entry)).partition("=") for entry in dump["environment"])
    return tuple(words[len(words) - len(part.args) :]), {name: value for name, _, value in entries}


@pytest.mark.timeout(600)  # a hundred deployments for some
@pytest.mark.parametrize("manager", REGISTRY.managers)
def test_sound_models_are_deployed_and_pass(manager: str, host: Host) -> None:
    """Everything runs, no rule finds anything, and each value has arrived byte for byte."""
    if obstacle := REGISTRY.manager(manager).obstacle(Host):
        pytest.skip(f"{manager} cannot run here: {obstacle}")

    @settings(
        max_examples=DEPLOYED.get(manager, FEW),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(deployable_models(largest=4))
    def passes(sketch: Sketch) -> None:
        system = System(Planner(REGISTRY.manager(manager), host, REGISTRY.rules, Settings()), Leases())
        system.start(lambda arguments: load(sketch, arguments))
        try:
            assert list(system.findings) == []
            for part in sketch.parts:
                args, environment = told(system[part.name], part, system.state)
                assert args == part.args
                assert part.variables.items() <= environment.items()
        finally:
            system.stop()

    passes()


@pytest.mark.parametrize("manager", DEPLOYED)
@settings(max_examples=100)
@given(sketch=conflicting_models())
def test_wrong_models_are_refused(manager: str, host: Host, sketch: Sketch) -> None:
    """A deployment of a model with a conflict is refused before anything is started, by the rule for it."""
    system = System(Planner(REGISTRY.manager(manager), host, REGISTRY.rules, Settings()), Leases())
    with pytest.raises(ConflictError) as caught:
        system.start(lambda arguments: load(sketch, arguments))
    assert {finding.code for finding in caught.value.findings if isinstance(finding, Finding)} == {sketch.verdict}
