"""Ports that RootlessKit forwards for a rootless engine: asked for, recorded, and taken back."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.managers.docker.rootless import RootlessForwards
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.values.commands import Spawn

RECORD = "/srv/profile/docker-forwards"


class RootlessKit:
    """The part of RootlessKit's API that is about ports, and what it has been asked for."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.forwarded: dict[int, dict[str, Any]] = {}
        self.recorded: list[bool] = []
        self.machine = FakeMachine()
        self.machine.files.sockets.add(f"{directory}/api.sock")
        self.server = ThreadingUnixStreamServer(f"{directory}/api.sock", self.handler())
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Return the class that answers requests."""
        kit = self

        class Handler(BaseHTTPRequestHandler):
            wbufsize = -1

            def do_GET(self) -> None:
                entries = [{"id": number, "spec": spec} for number, spec in kit.forwarded.items()]
                self.answer(200, entries or None)

            def do_POST(self) -> None:
                spec = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if spec["parentPort"] in kit.ports():
                    self.answer(500, {"message": "conflict with ID 1"})
                    return
                kit.recorded.append(kit.machine.files.exists(RECORD))
                number = max(kit.forwarded, default=0) + 1
                kit.forwarded[number] = spec
                self.answer(201, {"id": number, "spec": spec})

            def do_DELETE(self) -> None:
                del kit.forwarded[int(self.path.rpartition("/")[2])]
                self.answer(200, None)

            def answer(self, status: int, content: object) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def address_string(self) -> str:
                return "nobody"

        return Handler

    def ports(self) -> set[int]:
        """Return the ports that are forwarded."""
        return {spec["parentPort"] for spec in self.forwarded.values()}

    def container(self) -> int:
        """Return the first process of a container on an engine that this RootlessKit runs."""
        shim = self.machine.processes.spawn(Spawn(("/bin/shim",)))
        self.machine.files.contents[f"/proc/{shim}/environ"] = f"A=b\0ROOTLESSKIT_STATE_DIR={self.directory}\0".encode()
        return self.machine.processes.fork(shim)

    def close(self) -> None:
        """End the server."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def kit() -> Iterator[RootlessKit]:
    """Return a RootlessKit that forwards nothing yet."""
    with tempfile.TemporaryDirectory(prefix="rk") as directory:
        kit = RootlessKit(directory)
        yield kit
        kit.close()


def test_ports_are_forwarded_and_taken_back(kit: RootlessKit) -> None:
    """Ports lead into the network of a container, and are recorded before they do; others' are left alone."""
    kit.forwarded[7] = {"proto": "tcp", "parentPort": 99}
    forwards = RootlessForwards(kit.machine, RECORD)
    forwards.open(kit.container(), (80, 81))
    assert [spec for number, spec in kit.forwarded.items() if number != 7] == [
        {"proto": "tcp", "parentIP": "127.0.0.1", "parentPort": port, "childPort": port} for port in (80, 81)
    ]
    assert kit.recorded == [True, True]
    forwards.close((81,))
    assert kit.ports() == {99, 80}
    forwards.close()
    assert kit.ports() == {99}


def test_somebody_else_can_take_them_back(kit: RootlessKit) -> None:
    """The record alone leads to RootlessKit and to the ports."""
    first = RootlessForwards(kit.machine, RECORD)
    first.open(kit.container(), (80,))
    first.open(kit.container(), (82, 80))
    RootlessForwards(kit.machine, RECORD).close()
    assert kit.ports() == set()


def test_forwarding_again_is_harmless(kit: RootlessKit) -> None:
    """A container that is started again after a crash gets its ports again, once."""
    forwards = RootlessForwards(kit.machine, RECORD)
    forwards.open(kit.container(), (80,))
    forwards.open(kit.container(), (80,))
    assert [spec["parentPort"] for spec in kit.forwarded.values()] == [80]


def test_port_that_somebody_has(kit: RootlessKit) -> None:
    """A port that RootlessKit forwards for somebody else is an error that names it, and stays theirs."""
    kit.forwarded[7] = {"proto": "tcp", "parentPort": 80}
    forwards = RootlessForwards(kit.machine, RECORD)
    with pytest.raises(DeploymentError, match=r"does not forward TCP port 80: .*conflict with ID 1"):
        forwards.open(kit.container(), (80,))
    forwards.close()
    assert kit.ports() == {80}


def test_nobody_forwards(kit: RootlessKit) -> None:
    """A network of its own, and no RootlessKit above, is an error with the remedy."""
    with pytest.raises(DeploymentError, match="nobody forwards ports into it\nfix: run the engine below Root"):
        RootlessForwards(kit.machine, RECORD).open(kit.machine.processes.spawn(Spawn(("/bin/x",))), (80,))


def test_nothing_to_take_back(kit: RootlessKit) -> None:
    """Without a record there is nothing to close, and an engine that is gone forwards nothing."""
    RootlessForwards(kit.machine, RECORD).close()
    kit.machine.files.write(RECORD, json.dumps(["/nowhere/api.sock", [80]]))
    RootlessForwards(kit.machine, RECORD).close()
