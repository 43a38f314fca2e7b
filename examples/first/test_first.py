"""The first tests: ``nixproc_system`` is the system of ``processes.py``, deployed for real."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import requests

from pytest_nixproc import System


def free_ports() -> dict[str, int]:
    """Return two ports that nobody uses, so that these tests can run beside others."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return {"port": one.getsockname()[1], "mirror_port": other.getsockname()[1]}


pytestmark = pytest.mark.nixproc(model="processes.py", params=free_ports())


def test_page(nixproc_system: System) -> None:
    """The original serves its page."""
    assert requests.get(nixproc_system["original"].url, timeout=5).text == "Hello, world\n"


def test_mirror_without_original(nixproc_system: System) -> None:
    """The mirror serves its copy, even while the original is stopped."""
    with nixproc_system["original"].stopped():
        assert requests.get(nixproc_system["mirror"].url, timeout=5).text == "Hello, world\n"


def test_start_order(nixproc_system: System) -> None:
    """The mirror, which depends on the original, is started when that is ready."""
    happened = [(event.happening, event.instance) for event in nixproc_system.timeline]
    assert happened.index(("ready", "original")) < happened.index(("start", "mirror"))


def test_no_conflicts(nixproc_system: System) -> None:
    """The servers do not conflict: ports, PID files and logs are their own."""
    nixproc_system.assert_no_conflicts()


def test_same_from_yaml(nixproc_deploy: Callable[..., AbstractContextManager[System]]) -> None:
    """``processes.yaml`` describes the same system; it is up for the time of the ``with`` block."""
    with nixproc_deploy("processes.yaml", params={"python": sys.executable, **free_ports()}) as system:
        assert requests.get(system["mirror"].url, timeout=5).text == "Hello, world\n"
    assert not system.is_deployed
