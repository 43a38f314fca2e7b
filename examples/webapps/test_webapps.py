"""Tests of the webapps behind their reverse proxies, as the author of such a system would write them.

Every test runs on each process manager that ``--nixproc-manager`` names. The tests share one deployed system, that of
``processes_advanced.py``, except those that need a deployment of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import processes_advanced
import pytest
import requests
from constructors import nginx_reverse_proxy
from free_ports import free_port_block

from pytest_nixproc import Instance, RunningInstance, StateDirs, System

Deploy = Callable[..., AbstractContextManager[System]]

BEHIND = {"nginxReverseProxy": (1, 2, 3, 4), "nginxReverseProxy2": (5, 6)}


def ports() -> dict[str, int]:
    """Return parameters of the models, with free ports for six webapps and two proxies."""
    first = free_port_block(9)
    return {"base_port": first, "proxy_port": first + 7}


pytestmark = [
    pytest.mark.usefixtures("nginx"),
    pytest.mark.nixproc(model="processes_advanced.py", params=ports()),
]


def ask(proxy: RunningInstance, host: str) -> requests.Response:
    """Ask a proxy for the page of a virtual host."""
    return requests.get(proxy.url, headers={"Host": host}, timeout=5)


def test_proxy(nixproc_system: System) -> None:
    """Each proxy passes a request on to the webapp whose name the request asks for."""
    for name, numbers in BEHIND.items():
        for webapp in (nixproc_system[f"webapp{number}"] for number in numbers):
            reply = ask(nixproc_system[name], webapp.dns_name)
            assert reply.status_code == 200
            assert f"port {webapp.port}." in reply.text


def test_unknown_host(nixproc_system: System) -> None:
    """A proxy answers for no name but those of its own webapps."""
    foreign = nixproc_system["webapp5"].dns_name
    for host in ("nobody.local", foreign):
        reply = ask(nixproc_system["nginxReverseProxy"], host)
        assert (reply.status_code, reply.text) == (404, "No web application has this name.\n")


def test_stopped_webapp(nixproc_system: System) -> None:
    """While a webapp is stopped, its virtual host is a bad gateway, and only that; then it works again."""
    proxy, stopped, other = (nixproc_system[name] for name in ("nginxReverseProxy", "webapp1", "webapp2"))
    with stopped.stopped():
        assert not stopped.is_running
        assert ask(proxy, stopped.dns_name).status_code == 502
        assert ask(proxy, other.dns_name).status_code == 200
    assert ask(proxy, stopped.dns_name).status_code == 200


def test_crashed_webapp(nixproc_system: System) -> None:
    """A webapp that was killed can be started again, although its PID file may still be there."""
    proxy, webapp = nixproc_system["nginxReverseProxy"], nixproc_system["webapp3"]
    webapp.kill()
    assert ask(proxy, webapp.dns_name).status_code == 502
    webapp.start()
    assert ask(proxy, webapp.dns_name).status_code == 200


def test_reload(nixproc_system: System) -> None:
    """A reloaded proxy stays the same process, replaces its workers, and answers all the while."""
    proxy, webapp = nixproc_system["nginxReverseProxy"], nixproc_system["webapp1"]
    master, *workers = proxy.pids
    proxy.reload()
    assert {ask(proxy, webapp.dns_name).status_code for _ in range(20)} == {200}
    for worker in workers:
        nixproc_system.machine.wait_until_fails(f"kill -0 {worker}")
    assert proxy.pids[0] == master
    assert not set(workers) & set(proxy.pids)
    assert ask(proxy, webapp.dns_name).status_code == 200


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


def test_order(nixproc_deploy: Deploy) -> None:
    """Proxies start when all their webapps are ready, and stop before the first of these is stopped."""
    with nixproc_deploy(params=ports()) as system:
        pass
    happened = [(event.happening, event.instance) for event in system.timeline]
    for proxy, numbers in BEHIND.items():
        for webapp in (f"webapp{number}" for number in numbers):
            assert happened.index(("ready", webapp)) < happened.index(("start", proxy))
            assert happened.index(("stopped", proxy)) < happened.index(("stop", webapp))


def test_upgrade(nixproc_deploy: Deploy) -> None:
    """The step from the basic to the advanced system restarts the proxy, which has changed, and not the webapp."""
    with nixproc_deploy("processes.py", params=ports()) as system:
        webapp, proxy = system["webapp1"].pid, system["nginxReverseProxy"].pid
        before = len(system.timeline)
        system.switch(processes_advanced.processes)
        stopped = [event.instance for event in list(system.timeline)[before:] if event.happening == "stop"]
        assert stopped == ["nginxReverseProxy"]
        assert system["webapp1"].pid == webapp
        assert system["nginxReverseProxy"].pid != proxy
        for name in ("webapp1", "webapp4"):
            assert ask(system["nginxReverseProxy"], system[name].dns_name).status_code == 200


def test_no_webapps(nixproc_deploy: Deploy) -> None:
    """A proxy without any webapp says so."""

    def processes(state: StateDirs, proxy_port: int, **_: int) -> dict[str, Instance]:
        proxy = nginx_reverse_proxy(state, port=proxy_port, webapps=[])
        return {"nginxReverseProxy": Instance(port=proxy_port, pkg=proxy)}

    with nixproc_deploy(processes, params=ports()) as system:
        reply = ask(system["nginxReverseProxy"], "webapp1.local")
    assert (reply.status_code, reply.text) == (503, "There are no web applications.\n")
