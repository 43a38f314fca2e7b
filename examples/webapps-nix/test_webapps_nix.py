"""Tests of the webapps behind their reverse proxies, deployed from Nix expressions.

Every test runs on each process manager that ``--nixproc-manager`` names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests

from pytest_nixproc import RunningInstance, System

# Free ports are found as in the tests of the same system in Python.
sys.path.append(str(Path(__file__).parents[1] / "webapps"))
from free_ports import free_port_block

Deploy = Callable[..., AbstractContextManager[System]]

BEHIND = {"nginxReverseProxy": (1, 2, 3, 4), "nginxReverseProxy2": (5, 6)}


def ports() -> dict[str, int]:
    """Return parameters of the models, with free ports for six webapps and two proxies."""
    first = free_port_block(9)
    return {"basePort": first, "proxyPort": first + 7}


pytestmark = [
    pytest.mark.usefixtures("nix", "nginx"),
    pytest.mark.nixproc(model="processes-advanced.nix", params=ports()),
]


def ask(proxy: RunningInstance, host: str) -> requests.Response:
    """Ask a proxy for the page of a virtual host."""
    return requests.get(proxy.url, headers={"Host": host}, timeout=5)


def test_proxy(nixproc_system: System) -> None:
    """Each proxy passes a request on to the webapp whose name it asks for, and knows no other."""
    for name, numbers in BEHIND.items():
        for webapp in (nixproc_system[f"webapp{number}"] for number in range(1, 7)):
            reply = ask(nixproc_system[name], webapp.dns_name)
            is_behind = webapp in [nixproc_system[f"webapp{number}"] for number in numbers]
            assert reply.status_code == (200 if is_behind else 404)
            assert (f"port {webapp.port}." in reply.text) == is_behind


def test_program_is_built(nixproc_system: System) -> None:
    """The process is the program that Nix has built, in its store; as long as the system lives, a root protects it."""
    program = nixproc_system.model["webapp1"].pkg.process
    assert program is not None
    assert program.endswith("-webapp/bin/webapp")
    assert os.access(program, os.X_OK)
    roots = [name for name in os.listdir(nixproc_system.root) if name.startswith("nix-root")]
    assert [os.path.realpath(f"{nixproc_system.root}/{name}") for name in roots] == [
        program.removesuffix("/bin/webapp")
    ]


def test_failure(nixproc_system: System) -> None:
    """While a webapp is stopped, its proxy says so and serves the others; afterwards all is as before."""
    proxy = nixproc_system["nginxReverseProxy2"]
    stopped, other = nixproc_system["webapp5"], nixproc_system["webapp6"]
    with stopped.stopped():
        assert ask(proxy, stopped.dns_name).status_code == 502
        assert ask(proxy, other.dns_name).status_code == 200
    assert ask(proxy, stopped.dns_name).status_code == 200


def test_no_conflicts(nixproc_system: System) -> None:
    """Eight instances of two programs do not conflict, and listen where they say and nowhere else."""
    nixproc_system.assert_no_conflicts()
    for instance in nixproc_system.values():
        assert instance.listening == {instance.port}


def test_logs(nixproc_system: System) -> None:
    """What a webapp prints is in its log, whether it runs in the foreground or as a daemon."""
    webapp = nixproc_system["webapp6"]
    requests.get(f"{webapp.url}/a-page-of-this-test", timeout=5)
    webapp.wait_for_log("GET /a-page-of-this-test")


@pytest.mark.nixproc(model="processes-assigned.nix")
def test_assigned(nixproc_deploy: Deploy) -> None:
    """Ports come from the pools, as they are written down unless somebody has them, and the proxy knows them."""
    with nixproc_deploy() as system:
        assert system["webapp1"].port in range(5000, 6000)
        assert system["gateway"].port in range(8080, 9000)
        for webapp in (system["webapp1"], system["webapp2"]):
            assert f"port {webapp.port}." in ask(system["gateway"], webapp.dns_name).text


def test_basic(nixproc_deploy: Deploy) -> None:
    """The basic system knows the one webapp that it has."""
    with nixproc_deploy("processes.nix", params=ports()) as system:
        assert ask(system["nginxReverseProxy"], "webapp1.local").status_code == 200
        assert ask(system["nginxReverseProxy"], "webapp4.local").status_code == 404
