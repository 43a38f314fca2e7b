"""What is known of the other deployments of a machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._persistence.journal import Journal
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._planning import other_deployments
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.values.machine import MachineSpec


class Throwaway(FakeMachine):
    """One of several machines of a kind."""

    throwaway = True

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.spec = MachineSpec(str(directory))


def deploy(leases: Leases, root: Path) -> str:
    """Leave what says that something is deployed on a machine of the kind; return its name."""
    root.mkdir(parents=True)
    leases.save(DeploymentLease(str(root), (ProcessIdentity.current(),)))
    journal = Journal(f"{root}/journal")
    journal.write("begin", machine=FakeMachine.name)
    journal.write("claims", name=str(root), ports={}, paths={"/opt/data": "web"}, ids={})
    journal.close()
    return str(root)


def test_throwaway_machines_of_one_kind_are_apart(tmp_path: Path) -> None:
    """What is deployed on one throwaway machine is in the way of others there, and of nobody on another one."""
    leases = Leases(str(tmp_path / "leases" / "here"))
    there = deploy(leases, tmp_path / "one" / "aaaa")

    def names(machine: FakeMachine) -> list[str]:
        return [found.name for found in other_deployments.running_deployments(leases, machine, "/ours")]

    assert names(Throwaway(tmp_path / "one")) == [there]
    assert names(Throwaway(tmp_path / "two")) == []
    assert names(FakeMachine()) == [there]


def test_journal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment that ends while its journal is looked for, or read, is in nobody's way."""

    def events(path: str) -> Iterator[Mapping[str, Any]]:
        yield {"event": "begin", "machine": "host"}
        raise FileNotFoundError(path)

    assert list(other_deployments.claims_in("/nowhere/at/all/journal", "host")) == []
    monkeypatch.setattr(other_deployments, "events", events)
    assert list(other_deployments.claims_in("/nowhere/at/all/journal", "host")) == []
