"""What is known of the other deployments of a machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc.deployment import neighbours
from pytest_nixproc.deployment.journal import Journal
from pytest_nixproc.deployment.leases import Claim, Leases
from pytest_nixproc.deployment.ownership import Owner
from pytest_nixproc.machines.api import Place
from pytest_nixproc.testing.fake_machine import FakeMachine


class Throwaway(FakeMachine):
    """One of several machines of a kind."""

    throwaway = True

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.place = Place(str(directory))


def deploy(leases: Leases, root: Path) -> str:
    """Leave what says that something is deployed on a machine of the kind; return its name."""
    root.mkdir(parents=True)
    leases.claim(Claim(str(root), (Owner.current(),)))
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
        return [found.name for found in neighbours.living(leases, machine, "/ours")]

    assert names(Throwaway(tmp_path / "one")) == [there]
    assert names(Throwaway(tmp_path / "two")) == []
    assert names(FakeMachine()) == [there]


def test_journal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment that ends while its journal is looked for, or read, is in nobody's way."""

    def events(path: str) -> Iterator[Mapping[str, Any]]:
        yield {"event": "begin", "machine": "host"}
        raise FileNotFoundError(path)

    assert list(neighbours.claims_in("/nowhere/at/all/journal", "host")) == []
    monkeypatch.setattr(neighbours, "events", events)
    assert list(neighbours.claims_in("/nowhere/at/all/journal", "host")) == []
