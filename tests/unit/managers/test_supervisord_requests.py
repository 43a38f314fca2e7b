"""Requests to supervisord: how long their answers may take, and whose the connections are."""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import pytest

from pytest_nixproc.machines.shielding import shielded
from pytest_nixproc.managers.supervisord import FEW, Interface
from pytest_nixproc.managers.unix_rpc import ANSWER_SECONDS, Connections
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the limits of all requests, of which none is made."""
    found: list[float] = []

    def note(_: Connections, __: object, seconds: float) -> list[object]:
        found.append(seconds)
        return []

    monkeypatch.setattr(Connections, "ask", note)
    return found


def test_answer_may_take_as_long_as_what_keeps_supervisord_busy(limits: list[float]) -> None:
    """While many programs are started, an answer has as long as their start; else its usual limit."""
    machine = FakeMachine()
    interface = Interface(machine, Target(StateDirs.under("/run/it"), "/run/it/profile"))
    interface.entries([])
    with interface.within(machine.deadline(120)):
        interface.entries([])
        with interface.within(machine.deadline(10)):
            interface.entries([])
    with interface.within(machine.deadline(10)):
        interface.entries([])
    assert limits == [ANSWER_SECONDS, pytest.approx(120), pytest.approx(120), ANSWER_SECONDS]


def test_forked_child_has_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parent has connected is not used there, and its own only once; in one process, it is used again."""
    connections = Connections("/run/supervisord.sock")
    first = connections.ask(transport_of, 1)
    assert shielded(lambda: connections.ask(transport_of, 1)) is first
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    connections.renew()
    second = connections.ask(transport_of, 1)
    assert second is not first
    assert connections.ask(transport_of, 1) is not second


def transport_of(server: object) -> object:
    """Return the connection by which a request is made."""
    transport: object = vars(server)["_ServerProxy__transport"]
    return transport


class Server:
    """A supervisord of three programs, as its interface shows them: the pid of each start is another one."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pids = count(1)
        self.system = self.supervisor = self

    def multicall(self, calls: list[dict[str, Any]]) -> list[Any]:
        """Carry out several calls in one request."""
        self.asked.append(", ".join(" ".join(map(str, (call["methodName"], *call["params"]))) for call in calls))
        return [self.entry(call["params"][0]) for call in calls]

    def getAllProcessInfo(self) -> list[dict[str, Any]]:  # noqa: N802 - its name is supervisord's
        """Return what it has of all."""
        self.asked.append("all")
        return [self.entry(f"p{number}") for number in range(FEW + 1)]

    def entry(self, name: str) -> dict[str, Any]:
        """Return what it has of one program, or a fault."""
        return (
            {"name": name, "pid": next(self.pids)} if name != "gone" else {"faultCode": 10, "faultString": "BAD_NAME"}
        )


def unit(name: str) -> Unit:
    """Return a program."""
    return Unit(name, "foreground", "", "", ())


def test_few_programs_are_asked_for_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told about those alone; what was known of the others stays, but for those that a call has changed."""
    server = Server()
    monkeypatch.setattr(Connections, "ask", lambda _, request, __: request(server))
    interface = Interface(FakeMachine(), Target(StateDirs.under("/run/it"), "/run/it/profile"))
    units = [unit(f"p{number}") for number in range(FEW + 1)]
    assert [entry["pid"] for entry in interface.entries(units).values()] == list(range(1, FEW + 2))
    before = interface.known
    assert interface.entries([units[2], unit("gone")])["p2"]["pid"] == FEW + 2
    assert interface.known == {**before, "p2": {"name": "p2", "pid": FEW + 2}}
    assert before["p2"]["pid"] == 3, "who reads what was known goes on with that"
    assert interface.ask_all("stopProcess", [units[0], unit("gone")], False) == {"gone": "BAD_NAME"}  # noqa: FBT003
    assert interface.known.keys() == {one.name for one in units[1:]}
    assert server.asked == [
        "all",
        "supervisor.getProcessInfo p2, supervisor.getProcessInfo gone",
        "supervisor.stopProcess p0 False, supervisor.stopProcess gone False",
    ]
