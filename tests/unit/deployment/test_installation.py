"""What is made for a deployment before anything starts, and for whom it is open."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_nixproc._deployment.installation import directory_modes
from pytest_nixproc._system.system import System
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.values.machine import Account, Facts
from pytest_nixproc.values.target import Target

if TYPE_CHECKING:
    from tests.unit.conftest import MakeModel


def test_others_only_pass_through(target: Target) -> None:
    """Without users of the model, nobody else sees what is in a directory or makes anything there."""
    assert directory_modes(target) == dict.fromkeys((*target.state.all(), "/srv/profile"), 0o711)


def test_users_of_the_model_work_here(target: Target) -> None:
    """With users of the model, they see the directories, and all make temporary files."""
    modes = dict(directory_modes(replace(target, force_disable_user_change=False)))
    assert {modes.pop("/srv/state/tmp"), *modes.values()} == {0o1777, 0o755}
    assert modes.keys() == {*target.state.all(), "/srv/profile"} - {"/srv/state/tmp"}


@pytest.fixture(params=["root", "me"])
def machine(request: pytest.FixtureRequest) -> FakeMachine:
    """Return a machine that is used by root, or by an ordinary user."""
    return FakeMachine(Facts(account=Account() if request.param == "root" else Account("me", 1000, "me", 1000)))


def test_logs_are_for_the_caller(system: System, machine: FakeMachine, make_model: MakeModel) -> None:
    """Where others can come as far as the logs, nobody but the caller reads them, whoever writes them first."""
    system.start(lambda _: make_model(web={}))
    modes = [mode for path, mode in machine.files.modes.items() if path.endswith(".log")]
    system.stop()
    assert modes == ([0o600] if machine.facts.account.uid == 0 else [])
