"""The constructors in Nix are validated: instances with different parameters run side by side, from one build."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests

from pytest_nixproc import Instance, StateDirs, System

# What is behind the proxies can be described in either language; here it is the webapp in Python.
sys.path.append(str(Path(__file__).parents[1] / "webapps"))
from constructors import webapp

Validate = Callable[..., AbstractContextManager[System]]

pytestmark = pytest.mark.usefixtures("nix")


def one_webapp(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, list[Instance]]:
    """Return what all proxies are given alike: the webapp behind them."""
    port = free_port("webapp")
    pkg = webapp(state, port=port, instance_suffix="-behind")
    return {"webapps": [Instance(port=port, dns_name="webapp.local", pkg=pkg)]}


@pytest.mark.nixproc_vary(instanceSuffix=["-red", "-green", "-blue"])
def test_webapps_coexist(nixproc_constructor: Validate) -> None:
    """Three webapps answer on ports of their own; each is stopped and started while the others run on."""
    with nixproc_constructor("constructors.nix:webapp") as system:
        assert set(system) == {"webapp-red", "webapp-green", "webapp-blue"}
        for instance in system.values():
            assert f"port {instance.port}." in requests.get(instance.url, timeout=5).text


@pytest.mark.usefixtures("nginx")
def test_proxies_coexist(nixproc_constructor: Validate) -> None:
    """Two proxies reach the one webapp that they share."""
    with nixproc_constructor("constructors.nix:nginxReverseProxy", shared=one_webapp) as system:
        for name in ("nginx-reverse-proxy1", "nginx-reverse-proxy2"):
            reply = requests.get(system[name].url, headers={"Host": "webapp.local"}, timeout=5)
            assert f"port {system['webapp-behind'].port}." in reply.text
