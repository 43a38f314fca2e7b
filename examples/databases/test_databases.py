"""Tests of real servers, two instances of each: they answer, and the checks find nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from glob import glob
from pathlib import Path

import pytest
import requests

from pytest_nixproc import RunningInstance, System

Deploy = Callable[..., AbstractContextManager[System]]

MODEL = Path(__file__).with_name("processes.py")
PROGRAMS = {"nginx": "nginx", "redis": "redis-server", "postgresql": "postgres"}
SEARCHED = ":".join([os.environ.get("PATH", ""), "/usr/sbin", *glob("/usr/lib/postgresql/*/bin")])


def require(kind: str) -> None:
    """Skip without a server, or fail where ``NIXPROC_TEST_REQUIRE`` names it (as in CI)."""
    if kind == "postgresql" and os.geteuid() == 0:
        pytest.skip("PostgreSQL refuses to run as root: run this example as an ordinary user")
    if shutil.which(PROGRAMS[kind], path=SEARCHED) is None:
        problem = f"there is no {PROGRAMS[kind]}: see README.md"
        if kind in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(","):
            pytest.fail(problem, pytrace=False)
        pytest.skip(problem)


def ask_nginx(server: RunningInstance) -> str:
    """Ask for a page."""
    return requests.get(server.url, timeout=5).text


def ask_redis(server: RunningInstance) -> str:
    """Ask for the port that a redis was told, in its own protocol."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"CONFIG GET port\r\n")
        return connection.recv(1000).decode()


def ask_postgresql(server: RunningInstance) -> str:
    """Ask for the data directory of a cluster."""
    where = ["--host=127.0.0.1", f"--port={server.port}", "--username=postgres"]
    command = ["psql", *where, "--no-align", "--tuples-only", "--command=SHOW data_directory", "postgres"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


ASK = {"nginx": ask_nginx, "redis": ask_redis, "postgresql": ask_postgresql}


def identity(kind: str, server: RunningInstance) -> str:
    """Return what the answer of this instance, and of no other, holds."""
    return {"nginx": f"I am {server.name}.", "redis": str(server.port), "postgresql": f"/{server.name}"}[kind]


@pytest.mark.parametrize("kind", ASK)
def test_two_instances_coexist(kind: str, nixproc_deploy: Deploy) -> None:
    """Both answer for themselves, the checks find nothing at all, and each stops and starts beside the other."""
    require(kind)
    with nixproc_deploy(MODEL, params={"servers": kind}) as system:
        for server in system.values():
            assert identity(kind, server) in ASK[kind](server)
        system.assert_no_conflicts()
        assert list(map(str, system.findings)) == []
        first, second = system.values()
        pid = second.pid
        with first.stopped():
            assert identity(kind, second) in ASK[kind](second)
        assert second.pid == pid
        assert identity(kind, first) in ASK[kind](first)
        system.assert_no_conflicts()


def test_all_of_them(nixproc_deploy: Deploy) -> None:
    """All servers that can be had here are one system without conflicts."""
    kinds = [kind for kind in PROGRAMS if shutil.which(PROGRAMS[kind], path=SEARCHED)]
    kinds = [kind for kind in kinds if kind != "postgresql" or os.geteuid() != 0]
    if not kinds:
        pytest.skip("none of the servers is installed")
    with nixproc_deploy(MODEL, params={"servers": ",".join(kinds)}) as system:
        assert list(map(str, system.findings)) == []
        assert len(system) == 2 * len(kinds)
