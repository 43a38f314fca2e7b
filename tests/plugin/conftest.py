"""What the tests of the plugin share: a small model, and pytest runs in a process of their own."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MODEL = r'''
import sys

from pytest_nixproc import Instance, create_managed_process

PROGRAM = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    with connection:
        if request := connection.recv(4096):
            print(request.decode().splitlines()[0], flush=True)
            connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nhere")
"""


def server(name, port, **parameters):
    pkg = create_managed_process(
        name=name, foreground_process=sys.executable, args=["-I", "-S", "-c", PROGRAM, port], **parameters
    )
    return Instance(pkg, port=port)


def processes(state, port: int, second_port: int):
    first = server("first", port)
    return {"first": first, "second": server("second", second_port, dependencies=[first])}
'''


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """Return a function that finds ports which nobody uses at this moment."""

    def find(count: int) -> list[int]:
        sockets = [socket.socket() for _ in range(count)]
        try:
            for probe in sockets:
                probe.bind(("127.0.0.1", 0))
            return [probe.getsockname()[1] for probe in sockets]
        finally:
            for probe in sockets:
                probe.close()

    return find


@pytest.fixture
def state_root() -> Iterator[Path]:
    """Return a state root with a short path, which is empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="np") as directory:
        root = Path(directory) / "s"
        yield root
        assert not root.exists() or not list(root.iterdir()), "a deployment has left something"


@pytest.fixture
def project(pytester: pytest.Pytester, free_ports: Callable[[int], list[int]], state_root: Path) -> pytest.Pytester:
    """Return a project with a model of two servers, on ports of its own."""
    port, second = free_ports(2)
    pytester.makepyfile(processes=MODEL)
    pytester.makeini(
        "[pytest]\nnixproc_model = processes.py\n"
        f"nixproc_state_root = {state_root}\n"
        f"nixproc_param =\n    port={port}\n    second_port={second}\n"
        "addopts = --strict-markers -p no:cacheprovider\nfilterwarnings =\n    error\n"
    )
    return pytester
