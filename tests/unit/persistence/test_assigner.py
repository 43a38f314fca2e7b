"""The assigner: ports and ids of one deployment, which no other deployment of the machine gets too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._persistence.assigner import Assigner
from pytest_nixproc._persistence.leases import FREE_PORTS, Leases
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.model.ids import Assignments
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine


@pytest.fixture(autouse=True)
def _start_of_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin where the pools of these tests are not: elsewhere, one time in a thousand, a port by name lay in them."""
    monkeypatch.setattr("secrets.randbelow", lambda _: 0)


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    """Return leases of the test's own."""
    return Leases(f"{tmp_path}/top/leases")


@pytest.fixture
def machine() -> FakeMachine:
    """Return a machine on which nobody listens."""
    return FakeMachine()


@pytest.fixture
def assigner(leases: Leases, machine: FakeMachine) -> Assigner:
    """Return the assigner of a deployment."""
    return Assigner(leases, machine, "/srv/a")


def model(*names: str, pool: str = "webPorts", first: int = 25000, last: int = 25009) -> ProcessesModel:
    """Return a model of instances that all require an id of one pool."""
    instances = {
        name: Instance(create_managed_process(name=name, process="/usr/bin/web"), requires_unique_ids_for=[pool])
        for name in names
    }
    return ProcessesModel(instances, id_resources={pool: {"min": first, "max": last}})


def test_named_ports_stay_and_differ(assigner: Assigner) -> None:
    """A name has the same port each time, and two names have two ports, in the range below that of clients."""
    first, second = assigner.free_port("web"), assigner.free_port("admin")
    assert first != second
    assert (assigner.free_port("web"), assigner.free_port("admin")) == (first, second)
    assert {first, second} < set(FREE_PORTS)


@pytest.fixture
def looks(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each look at the leases of ports."""
    looks, locked = [], leases.locked

    def counted() -> Any:
        looks.append(1)
        return locked()

    monkeypatch.setattr(leases, "locked", counted)
    return looks


def test_model_without_ids_takes_no_look(assigner: Assigner, looks: list[int]) -> None:
    """What needs nothing of the machine's leases does not wait for those who do; its pools have no ids."""
    assert dict(assigner.assign(model())["webPorts"]) == {}
    assert looks == []


def test_many_ports_take_few_looks(assigner: Assigner, leases: Leases, looks: list[int]) -> None:
    """The leases of the machine are read a few times for many names; those for no name are given back at last."""
    ports = {assigner.free_port(f"port{number}") for number in range(100)}
    assert (len(ports), len(looks)) == (100, 7)
    ids = assigner.assign(model("x"))
    with leases.locked() as held:
        assert held.leases.keys() == ports | {ids["webPorts"]["x"]}


def test_port_that_is_taken_after_it_was_leased(assigner: Assigner, machine: FakeMachine) -> None:
    """A port on which a stranger begins to listen before it has a name is not given."""
    second = [assigner.free_port(name) for name in ("web", "admin")][1]
    machine.network.listen(second + 1)
    assert assigner.free_port("next") not in (second, second + 1)


def test_two_deployments_have_different_ports(leases: Leases, machine: FakeMachine, assigner: Assigner) -> None:
    """Ports by name and ids of port pools are leased machine-wide; other ids are each deployment's own."""
    other = Assigner(leases, machine, "/srv/b")
    assert assigner.free_port("web") != other.free_port("web")
    assert assigner.assign(model("x"))["webPorts"]["x"] != other.assign(model("x"))["webPorts"]["x"]
    uids = [one.assign(model("x", pool="uids"))["uids"]["x"] for one in (assigner, other)]
    assert uids == [25000, 25000]


def test_ports_that_are_in_use_are_not_given(leases: Leases) -> None:
    """A port on which a stranger listens is neither leased by name nor from a pool."""
    machine = FakeMachine()
    assigner = Assigner(leases, machine, "/srv/a")
    following = assigner.free_port("web") + 1
    for port in (25000, following):
        machine.network.listen(port)
    assert assigner.assign(model("x"))["webPorts"]["x"] == 25001
    assert assigner.free_port("admin") != following


def test_pools_and_named_ports_do_not_meet(assigner: Assigner) -> None:
    """A pool gives no port that the same deployment has leased by name, although it is its own lease."""
    port = assigner.free_port("web")
    found = assigner.assign(model("x", "y", first=port - 1, last=port + 1))["webPorts"]
    assert set(found.values()) == {port - 1, port + 1}


def test_ids_are_retained_from_model_to_model(assigner: Assigner) -> None:
    """A second model of the same deployment keeps the ids of the first."""
    first = dict(assigner.assign(model("b", "c"))["webPorts"])
    second = dict(assigner.assign(model("a", "b", "c"))["webPorts"])
    assert {name: second[name] for name in first} == first


def test_full_pool_can_be_passed_on(assigner: Assigner) -> None:
    """An instance that replaces another one can have its port when the pool has no other."""
    assigner.assign(model("old", last=25000))
    assert dict(assigner.assign(model("new", last=25000))["webPorts"]) == {"new": 25000}


def test_exhausted_pool_names_itself(leases: Leases, machine: FakeMachine, assigner: Assigner) -> None:
    """A pool whose ports other deployments have is exhausted; what was leased in vain is free again."""
    assigner.assign(model("x", "y", last=25001))
    with pytest.raises(NixprocError, match="no id is left in pool 'webPorts'"):
        Assigner(leases, machine, "/srv/b").assign(model("x", last=25001))
    assigner.release()
    assert len(Assigner(leases, machine, "/srv/b").assign(model("x", "y", last=25001))["webPorts"]) == 2


def test_release_leaves_nothing(assigner: Assigner, tmp_path: Path) -> None:
    """After the release no lease is left, nor the directory."""
    assigner.free_port("web")
    assigner.assign(model("x"))
    assigner.release()
    assert not (tmp_path / "top").exists()


def test_guests_take_over_what_was_assigned(leases: Leases, machine: FakeMachine, assigner: Assigner) -> None:
    """Who attaches to a deployment has its ports and ids, through the text of the journal."""
    port, ids = assigner.free_port("web"), assigner.assign(model("x", "y"))
    guest = Assigner(leases, machine, "/srv/a")
    guest.adopt(json.loads(json.dumps(assigner.facts())))
    assert guest.free_port("web") == port
    assert dict(guest.assign(model("x", "y"))["webPorts"]) == dict(ids["webPorts"])


LEASER = """
import sys
from pytest_nixproc._persistence.assigner import Assigner
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc.machines.host import Host
from pytest_nixproc.model.ids import Assignments
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel

def instance(name):
    return Instance(create_managed_process(name=name, process="/x"), requires_unique_ids_for="xPorts")

instances = {name: instance(name) for name in (f"x{number}" for number in range(20))}
model = ProcessesModel(instances, id_resources={"xPorts": {"min": 26000, "max": 26199}})
assigner = Assigner(Leases(sys.argv[1]), Host(), sys.argv[1] + sys.argv[2])
print(*assigner.assign(model)["xPorts"].values(), flush=True)
sys.stdin.read()
assigner.release()
"""


def start_leaser(directory: str, number: int) -> subprocess.Popen[str]:
    """Start a process that takes ids, prints them, and keeps them until its input ends."""
    argv = [sys.executable, "-c", LEASER, directory, str(number)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_pools_of_several_processes_have_no_duplicates(leases: Leases, tmp_path: Path) -> None:
    """Processes that take ids from the same pool at the same time have different ones."""
    running = [start_leaser(leases.directory, number) for number in range(4)]
    ports = [port for process in running if process.stdout for port in process.stdout.readline().split()]
    for process in running:
        process.communicate()
    assert len(ports) == len(set(ports)) == 80
    assert not (tmp_path / "top").exists()


def recorded(model: ProcessesModel, **ids: int) -> ProcessesModel:
    """Return a model with ids that its instances had before."""
    pool = next(iter(model.pools))
    pools = dict(model.pools)
    return ProcessesModel(dict(model), id_resources=pools, recorded_ids=Assignments({pool: ids}, {pool: 25005}))


def test_recorded_ids_are_retained(assigner: Assigner) -> None:
    """An instance has the id that was written down for it; a new one gets one behind the last."""
    found = assigner.assign(recorded(model("a", "b"), b=25003))
    assert found["webPorts"] == {"a": 25006, "b": 25003}


def test_recorded_port_is_leased_once(leases: Leases, machine: FakeMachine, assigner: Assigner) -> None:
    """Of two deployments of the same model, one at a time has its recorded ports; other ids are both's."""
    other = Assigner(leases, machine, "/srv/b")
    both = recorded(model("a"), a=25003)
    assert assigner.assign(both)["webPorts"]["a"] == 25003
    assert other.assign(both)["webPorts"]["a"] == 25006
    numbers = [one.assign(recorded(model("a", pool="uids"), a=25003))["uids"]["a"] for one in (assigner, other)]
    assert numbers == [25003, 25003]


def test_recorded_port_in_use_is_not_given(machine: FakeMachine, assigner: Assigner) -> None:
    """A recorded port on which a stranger listens is replaced for this deployment."""
    machine.network.listen(25003)
    assert assigner.assign(recorded(model("a"), a=25003))["webPorts"]["a"] == 25006


def test_recorded_port_that_a_name_has(leases: Leases, machine: FakeMachine) -> None:
    """A port that the deployment itself has leased under a name is not given again."""
    assigner = Assigner(leases, machine, "/srv/a")
    port = assigner.free_port("web")
    found = assigner.assign(recorded(model("a", first=port, last=port + 9), a=port))
    assert found["webPorts"]["a"] == port + 1


def test_an_upgrade_keeps_what_the_deployment_has(assigner: Assigner) -> None:
    """What was written down meanwhile for others does not take an id away from a running instance."""
    assert assigner.assign(model("a"))["webPorts"]["a"] == 25000
    found = assigner.assign(recorded(model("a", "b"), a=25004, b=25000))
    assert found["webPorts"]["a"] == 25000
    assert found["webPorts"]["b"] != 25000
