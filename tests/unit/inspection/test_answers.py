"""Whose answer it is, and at which address an instance is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc._inspection.answers import Answer, Answers, ProcessAttribution, rivals, strangers
from pytest_nixproc._inspection.observation import holders, inspect_processes
from pytest_nixproc._inspection.observer import Observer
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import Listener, ProcessInfo
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

if TYPE_CHECKING:
    from tests.unit.conftest import FakeDriver, MakeModel

HERE, OTHER = "127.0.0.1", "127.0.0.2"
WEB = Answer("web", HERE, 80)


@dataclass
class Running:
    """Instances that run."""

    model: ProcessesModel
    units: dict[str, Unit]
    driver: FakeDriver

    def statuses(self) -> dict[str, Status]:
        """Return the statuses by instance."""
        by_unit = self.driver.status(list(self.units.values()))
        return {name: by_unit[unit.name] for name, unit in self.units.items()}

    def strangers(self, *answers: Answer) -> dict[Answer, str]:
        """Return whose some answers are, as far as they are not the instances' own."""
        return strangers(self.driver, self.units, self.statuses(), answers)

    def pid(self, name: str) -> int:
        """Return the main process of an instance."""
        return self.driver.pids[self.units[name].name]

    def observer(self) -> Observer:
        """Return an observer of the instances."""
        return Observer(self.driver, self.units, is_guest=False)


Run = Callable[..., Running]


@pytest.fixture
def run(driver: FakeDriver, make_model: MakeModel, units: Any, machine: FakeMachine) -> Run:
    """Return a function that runs instances with attributes, one second after the clock has begun."""

    def run(**instances: dict[str, Any]) -> Running:
        running = Running(model := make_model(**instances), units(model), driver)
        machine.clock.advance(1)
        driver.activate(list(running.units.values()), machine.deadline(1))
        return running

    return run


def tagged(machine: FakeMachine, target: Target, name: str) -> int:
    """Start a process that names an instance in its environment, and descends from no main process."""
    return machine.processes.spawn(Spawn(("/fake/left",), {**target.tags, "NIXPROC_INSTANCE": name}))


def stranger(machine: FakeMachine) -> int:
    """Start a process that has nothing to do with the deployment."""
    return machine.processes.spawn(Spawn(("/bin/nc", "-l")))


def test_own_answer(run: Run, machine: FakeMachine) -> None:
    """An answer is an instance's own when its main process gives it, or a child, or one that cannot be seen."""
    running = run(web={})
    main = running.pid("web")
    for pid in (main, machine.processes.fork(main, Spawn(("/fake/worker",))), None):
        machine.network.listen(80, pid)
        assert running.strangers(WEB) == {}


def test_answer_of_a_stranger(run: Run, machine: FakeMachine) -> None:
    """An answer that somebody else gives is not an instance's own, also when that is another instance."""
    running = run(web={}, db={})
    for pid, who in ((stranger(machine), "/bin/nc -l"), (running.pid("db"), "/fake/db")):
        machine.network.listen(80, pid)
        assert running.strangers(WEB) == {WEB: f"process {pid} holds it ({who}), which is none of web's"}


def test_nobody_is_blamed_without_a_socket(run: Run, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no socket is seen, as with ports that the kernel forwards, an answer may be an instance's own."""
    monkeypatch.setattr(machine.network, "connection_problem", lambda _: "")
    assert run(web={}).strangers(WEB) == {}


def test_udp_port_of_a_stranger(run: Run, machine: FakeMachine) -> None:
    """A UDP port is an instance's own when one of its processes has it; a TCP port of that number does not count."""
    running, answers = run(web={}), Answers(machine.network)
    asked = Answer("web", "", 53, "udp")
    machine.network.listen(53, running.pid("web"))
    assert answers.udp_problem("web", 53) == "nobody is bound to it"
    assert running.strangers(asked) == {asked: "nobody is bound to it"}
    machine.network.bind_udp(53, pid := stranger(machine))
    assert (answers.udp_problem("web", 53), answers.given) == ("", [asked])
    told = f"process {pid} holds it (/bin/nc -l), which is none of web's"
    assert running.strangers(asked) == {asked: told}
    assert Answers(machine.network, {asked: told}).udp_problem("web", 53) == told
    machine.network.bind_udp(53, running.pid("web"), OTHER)
    assert running.strangers(asked) == {}


def test_answer_of_one_who_is_gone(run: Run) -> None:
    """Who has answered, and does not listen any more, was not the instance."""
    assert run(web={}).strangers(WEB) == {WEB: "Connection refused"}


def test_instance_without_a_process(run: Run, machine: FakeMachine) -> None:
    """As long as an instance has no process, no answer is its own."""
    running = run(web={})
    machine.processes.end(running.pid("web"))
    machine.network.listen(80)
    assert running.strangers(WEB) == {WEB: "its program has not been started"}


def test_left_of_an_earlier_run(machine: FakeMachine, target: Target, run: Run) -> None:
    """A process with an instance's tag is the instance's, unless it was there before its main process."""
    left = tagged(machine, target, "web")
    running = run(web={})
    machine.network.listen(80, left)
    assert running.strangers(WEB) == {WEB: f"process {left} holds it (/fake/left), which is none of web's"}
    machine.network.listen(80, tagged(machine, target, "web"))
    assert running.strangers(WEB) == {}


def test_what_stands_above_the_main_process(machine: FakeMachine, target: Target) -> None:
    """A foreground proxy is older than the daemon that it has started, and of the same run."""
    proxy = tagged(machine, target, "web")
    machine.clock.advance(1)
    main = machine.processes.fork(proxy, Spawn(("/fake/web",)))
    assert ProcessAttribution(machine, target, {main: "web"}).owner(proxy) == "web"


def test_main_process_that_has_gone(machine: FakeMachine, target: Target) -> None:
    """Where the main process has gone in the meantime, what is left is not its instance's any more."""
    assert ProcessAttribution(machine, target, {1 << 24: "web"}).owner(tagged(machine, target, "web")) is None


@pytest.mark.parametrize(
    ("own", "other", "host", "is_own"),
    [(OTHER, HERE, OTHER, True), (OTHER, HERE, HERE, False), ("*", HERE, HERE, False), ("*", HERE, OTHER, True)],
)
def test_the_address_decides(run: Run, machine: FakeMachine, own: str, other: str, host: str, *, is_own: bool) -> None:
    """Of several sockets of one port that one answers which is bound to the address, else the one on all of them."""
    running = run(web={})
    machine.network.listen(80, running.pid("web"), own)
    machine.network.listen(80, stranger(machine), other)
    assert (running.strangers(Answer("web", host, 80)) == {}) is is_own


def test_forwarded_port(run: Run, machine: FakeMachine) -> None:
    """A port that is forwarded to a unit is the unit's, whoever forwards it."""
    running = run(web={})
    machine.network.listen(80, stranger(machine), "*")
    running.driver.forwarded = [Listener(HERE, 80, running.pid("web"))]
    assert running.strangers(WEB) == {}


def test_rivals_at_its_address(run: Run, machine: FakeMachine) -> None:
    """Who has the port of an instance on another address has nothing to do with its start."""
    running = run(web={"port": 80, "bind_address": OTHER})
    machine.network.listen(80, stranger(machine))
    assert list(rivals(running.driver, running.units["web"], running.model["web"])) == []
    machine.network.listen(80, pid := stranger(machine), OTHER)
    assert list(rivals(running.driver, running.units["web"], running.model["web"])) == [
        f"TCP port 80: process {pid} holds it (/bin/nc -l)"
    ]


@pytest.mark.parametrize(
    ("said", "bound", "host"),
    [
        ({"bind_address": OTHER}, None, OTHER),
        ({"bind_address": "::"}, None, "::1"),
        ({"bind_address": "::"}, "*", "::1"),
        ({}, None, HERE),
        ({}, HERE, HERE),
        ({}, OTHER, OTHER),
        ({}, "::1", "::1"),
        ({}, "*", HERE),
        ({"bind_address": "localhost"}, "::1", "::1"),
    ],
)
def test_address_of_an_instance(run: Run, machine: FakeMachine, said: Any, bound: str | None, host: str) -> None:
    """An instance is reached at the address that it declares, or else where it listens; by default at 127.0.0.1."""
    running = run(web={"port": 80, **said})
    if bound:
        machine.network.listen(80, running.pid("web"), bound)
    assert running.observer().address("web", *running.model["web"].endpoints) == (host, 80)


def test_address_beside_a_stranger(run: Run, machine: FakeMachine) -> None:
    """Where several addresses lead to a port, it is the one at which the instance itself listens."""
    running = run(web={"port": 80})
    machine.network.listen(80, stranger(machine), HERE)
    machine.network.listen(80, running.pid("web"), OTHER)
    assert running.observer().address("web", *running.model["web"].endpoints) == (OTHER, 80)


def test_unanswered(run: Run, machine: FakeMachine) -> None:
    """An endpoint is unanswered where nobody answers, and where somebody else does; each with the reason."""
    running = run(a={"port": 80}, b={"port": 81}, c={"port": 82, "bind_address": OTHER})
    machine.network.listen(80, running.pid("a"))
    machine.network.listen(81, pid := stranger(machine))
    machine.network.listen(82, running.pid("c"))
    endpoints = [(name, endpoint) for name, it in running.model.items() for endpoint in it.endpoints]
    found = {name: why for (name, _), why in running.observer().unanswered(endpoints, running.statuses()).items()}
    assert found == {"b": f"process {pid} holds it (/bin/nc -l), which is none of b's", "c": "Connection refused"}


def test_one_look_for_all(run: Run, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many answers there are, the machine is looked through once; and not at all when there are none."""
    running = run(a={}, b={})
    looks: list[set[int]] = []

    def look(_: object, wanted: set[int]) -> list[Listener]:
        looks.append(wanted)
        return []

    monkeypatch.setattr(machine.network, "listeners", look)
    monkeypatch.setattr(machine.network, "connection_problem", lambda _: "")
    assert (running.strangers(), looks) == ({}, [])
    assert (running.strangers(Answer("a", HERE, 80), Answer("b", HERE, 81)), looks) == ({}, [{80, 81}])


def test_open_ports_are_asked_for_when_they_matter(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A declared address needs no look at open ports; others share one in a round, where it can be taken."""
    looks = iter([{80: [OTHER]}, None])
    monkeypatch.setattr(machine.network, "open_ports", lambda: next(looks))
    answers = Answers(machine.network)
    assert answers.hosts(Endpoint("port", 80, address=HERE)) == (HERE,)
    assert [answers.hosts(Endpoint("port", port)) for port in (80, 81)] == [(OTHER,), (HERE,)]
    assert Answers(machine.network).hosts(Endpoint("port", 80)) == (HERE, "::1")


def test_listeners_of_instances(run: Run, machine: FakeMachine) -> None:
    """One port on two addresses has two holders; what listens elsewhere does not stand in for what is declared."""
    running = run(a={"port": 80, "bind_address": HERE}, b={"port": 80, "bind_address": OTHER})
    machine.network.listen(80, running.pid("a"), HERE)
    machine.network.listen(80, pid := stranger(machine), OTHER)
    attribution = ProcessAttribution(machine, running.driver.target, {running.pid(name): name for name in "ab"})
    seen = inspect_processes(machine, attribution.main, running.driver.target)
    found = holders(running.driver, {}, attribution, seen, running.model)
    assert found == {Listener(HERE, 80, running.pid("a")): "a", Listener(OTHER, 80, pid): None}


@pytest.mark.parametrize(("is_older", "owner"), [(True, None), (False, "web")])
def test_listener_that_has_escaped(
    run: Run, machine: FakeMachine, target: Target, *, is_older: bool, owner: str | None
) -> None:
    """What has left the tree of its main process holds its instance's port, unless an earlier run has left it."""
    left = tagged(machine, target, "web") if is_older else None
    running = run(web={"port": 80})
    pid = left or tagged(machine, target, "web")
    machine.network.listen(80, pid)
    seen = [("web", ProcessInfo(pid, None, "web", listening=(Listener(HERE, 80, pid),)))]
    attribution = ProcessAttribution(machine, target, {running.pid("web"): "web"})
    assert holders(running.driver, {}, attribution, seen, running.model) == {Listener(HERE, 80, pid): owner}
