"""Looking at conditions of readiness."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from pytest_nixproc._deployment.readiness import Candidate, ReadinessChecker, condition_of
from pytest_nixproc._inspection.answers import Answer, Answers
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.fake_machine import FakeMachine, ends

WEB = create_managed_process(name="web", process="/bin/web")
OPEN, SHUT = ready.tcp(80), ready.tcp(81)


class FakeSubject:
    """A running instance with a log."""

    def __init__(self, log: str = "") -> None:
        self.log = log


def candidate(machine: FakeMachine, log: str = "", **attributes: Any) -> Candidate:
    """Return an instance with some attributes, and a log, as its condition is applied to it."""
    return Candidate("web", Instance(WEB, **attributes), FakeSubject(log), Answers(machine.network), lambda: log)


@pytest.fixture
def machine() -> FakeMachine:
    """Return a machine with an open port, a socket and a file."""
    machine = FakeMachine()
    machine.network.listen(80)
    machine.network.bind_udp(53)
    machine.files.sockets.add("/s")
    machine.files.write("/f", "")
    return machine


@pytest.fixture
def checker(machine: FakeMachine) -> ReadinessChecker:
    """Return a checker on that machine."""
    return ReadinessChecker(machine, {"PATH": "/usr/bin"})


HOLDING = [
    OPEN,
    ready.udp(53),
    ready.unix_socket("/s"),
    ready.file("/f"),
    ready.log("listening on [0-9]+$"),
    ready.log("^second"),
    ready.log("^of a network$"),
    ready.log("network\r$"),
    ready.when(lambda subject: subject.log),
    OPEN & ready.file("/f"),
    SHUT | OPEN,
]

MISSING = [
    (SHUT, "port 81: Connection refused"),
    (ready.udp(80), "UDP port 80: nobody is bound to it"),
    (ready.unix_socket("/t"), "socket /t: Connection refused"),
    (ready.file("/g"), "file /g does not exist"),
    (ready.log("^on"), "log line '^on' not seen"),
    (ready.when(bool_of := lambda _: False), f"{bool_of.__name__}() does not hold"),
    (OPEN & SHUT & ready.file("/g"), "port 81: Connection refused"),
    (SHUT | ready.file("/g"), "port 81: Connection refused and file /g does not exist"),
]


@pytest.mark.parametrize("condition", HOLDING, ids=str)
def test_condition_that_holds(machine: FakeMachine, checker: ReadinessChecker, condition: ready.Condition) -> None:
    """Nothing is unmet when a condition holds."""
    assert checker.unmet(condition, candidate(machine, "listening on 80\nsecond line\nof a network\r\n")) == ""


@pytest.mark.parametrize(("condition", "unmet"), MISSING, ids=lambda value: str(value)[:30])
def test_condition_that_does_not_hold(
    machine: FakeMachine, checker: ReadinessChecker, condition: ready.Condition, unmet: str
) -> None:
    """What is unmet is named, with what was seen."""
    assert checker.unmet(condition, candidate(machine, "listening on 80\n")) == unmet


@pytest.mark.parametrize(
    ("status", "unmet"), [(0, ""), (3, "command ended with status 3: check it"), (None, "time limit")]
)
def test_command(machine: FakeMachine, checker: ReadinessChecker, status: int | None, unmet: str) -> None:
    """A command holds when it succeeds; what runs too long is killed, and does not."""
    if status is not None:
        machine.processes.program("/bin/sh", ends(status))
    text = checker.unmet(ready.command("check", "it"), candidate(machine))
    assert unmet in text
    assert bool(text) is bool(unmet)
    (process,) = machine.processes.by_pid.values()
    assert process.command.argv[-2:] == ("check", "it")
    assert (process.command.environment, process.runs) == ({"PATH": "/usr/bin"}, False)


def test_something_else_is_no_condition(machine: FakeMachine, checker: ReadinessChecker) -> None:
    """What is no condition is an error of the program, not a wait."""
    with pytest.raises(TypeError, match="5 is no condition"):
        checker.unmet(5, candidate(machine))


class Server(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(int(self.path.strip("/")))
        self.send_header("Location", "/200")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Log nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Return the port of a server in a thread of this process."""
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "status", "holds"),
    [("/200", None, True), ("/302", None, True), ("/404", None, False), ("/503", 503, True), ("/200", 503, False)],
)
def test_http_answer(
    machine: FakeMachine, checker: ReadinessChecker, port: int, path: str, status: int | None, *, holds: bool
) -> None:
    """An answer holds by its own status, without following it elsewhere; a path goes to the instance's own port."""
    for address in (path, f"http://127.0.0.1:{port}{path}"):
        own = candidate(machine, port=port)
        assert checker.unmet(ready.http(address, status=status), own) == (
            "" if holds else f"HTTP answer of {address}: status {path[1:]}"
        )
        assert own.answers.given == ([Answer("web", "127.0.0.1", port)] if holds else [])


def test_http_does_not_ask_a_proxy(
    machine: FakeMachine, checker: ReadinessChecker, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance is asked itself, even where the environment names a proxy for the outside world."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert checker.unmet(ready.http("/200"), candidate(machine, port=port)) == ""


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "http://127.0.0.1:123456/"])
def test_http_without_an_answer(machine: FakeMachine, checker: ReadinessChecker, address: str) -> None:
    """Where nobody answers, the reason is what is unmet, also where nobody ever could."""
    assert f"HTTP answer of {address}" in checker.unmet(ready.http(address), candidate(machine, port=1))


def test_path_without_a_single_port(machine: FakeMachine, checker: ReadinessChecker) -> None:
    """A path alone needs a port of the instance's own to go to."""
    with pytest.raises(NixprocError, match="web has no single port to make a URL of"):
        checker.unmet(ready.http("/"), candidate(machine, ports={"a": 1, "b": 2}))


def test_what_has_to_hold_by_default() -> None:
    """Without a condition all declared ports have to be open; without ports there is nothing to look at."""
    assert condition_of(Instance(WEB)) is None
    assert condition_of(Instance(WEB, port=80, ports={"x": 81})) == ready.AllOf((ready.tcp(80), ready.tcp(81)))
    assert condition_of(Instance(WEB, port=80, ready=ready.file("/f"))) == ready.file("/f")
