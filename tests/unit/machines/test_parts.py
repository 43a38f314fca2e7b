"""What every machine is made of."""

from __future__ import annotations

from typing import Any, Final

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.parts import AccountDatabase, Files, Lifecycle, Network, Processes
from pytest_nixproc.testing.fake_machine import FakeMachine

KINDS: Final = {**Registry().machines, FakeMachine.name: FakeMachine}
PARTS: Final = {
    "processes": Processes,
    "files": Files,
    "network": Network,
    "accounts": AccountDatabase,
    "lifecycle": Lifecycle,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("name", "contract"), PARTS.items(), ids=PARTS)
def test_machine_has_all_parts(kind: type[Machine], name: str, contract: type[Any]) -> None:
    """Each kind of machine has all parts, and each part keeps its contract."""
    with kind() as machine:
        assert isinstance(getattr(machine, name), contract)
        assert machine.deadline(1).remaining > 0
