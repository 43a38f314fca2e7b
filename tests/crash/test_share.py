"""Shared deployments: failures reach every worker, and what differs is never shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.storm import RUN_SECONDS, Session, wait

SHARE = ("-o", "addopts=", "-n", "2", "--nixproc-scope=session", "--nixproc-share")

BROKEN = """
from pytest_nixproc import Instance, create_managed_process

def processes(free_port):
    pkg = create_managed_process(name="broken", foreground_process="/bin/sh", args=["-c", "echo spilt; exit 3"])
    return {"broken": Instance(pkg, port=free_port("broken"))}
"""

TESTS = """
import pytest

@pytest.mark.parametrize("number", range(8))
def test_it(nixproc_system, number): ...
"""

DIFFERENT = """
import os
import time
import pytest
from conftest import mark

def model_for(name):
    def processes(state, free_port):
        from counted import processes
        return processes(state, free_port, name)
    return processes

@pytest.mark.parametrize("number", range(4))
@pytest.mark.nixproc(model=model_for("one"))
def test_one(nixproc_system, number):
    assert list(nixproc_system) == ["one"]

@pytest.mark.parametrize("number", range(4))
@pytest.mark.nixproc(model=model_for("two"))
def test_two(nixproc_system, number):
    assert list(nixproc_system) == ["two"]
"""

PARAMETERS = """
import pytest

@pytest.mark.parametrize("number", range(4))
@pytest.mark.nixproc(model="counted.py", params={"name": "one"})
def test_one(nixproc_system, nixproc_manager, number):
    assert (list(nixproc_system), nixproc_system.manager) == (["one"], nixproc_manager)

@pytest.mark.parametrize("number", range(4))
@pytest.mark.nixproc(model="counted.py", params={"name": "two"})
def test_two(nixproc_system, nixproc_manager, number):
    assert (list(nixproc_system), nixproc_system.manager) == (["two"], nixproc_manager)
"""


def run(one: Session, test: str, *options: str) -> str:
    """Run the session with workers that share; return what it prints."""
    (Path(one.place) / "project" / "test_it.py").write_text(test)
    one.start(*SHARE, *options, STORM_COUNTS=f"{one.place}/counts")
    assert wait(one.is_over, RUN_SECONDS), one.output
    return one.output


def counts(one: Session) -> list[str]:
    """Return what the counted program has counted."""
    file = Path(f"{one.place}/counts")
    return sorted(file.read_text().split()) if file.exists() else []


@pytest.mark.parametrize("manager", ["supervisord", pytest.param("sysvinit", marks=pytest.mark.long)])
def test_failure_of_the_start_reaches_all_workers(project: Session, manager: str) -> None:
    """When a shared system cannot be started, every test in every worker fails with the reason, and nothing is left."""
    (Path(project.place) / "project" / "processes.py").write_text(BROKEN)
    output = run(project, TESTS, f"--nixproc-manager={manager}")
    assert "8 errors" in output, output
    assert output.count("\nbroken did not start: it ended") == 8, output
    assert project.left() == {}


def test_managers_and_parameters_are_not_shared(project: Session) -> None:
    """Each manager and each set of parameters has a system of its own, started once and stopped once."""
    output = run(project, PARAMETERS, "--nixproc-manager=supervisord,sysvinit")
    assert "16 passed" in output, output
    assert counts(project) == ["start"] * 4 + ["stop"] * 4
    assert project.left() == {}


def test_models_of_the_same_code_are_not_shared(project: Session) -> None:
    """Functions that one function has made differ by what they close over, which cannot be compared: refused."""
    output = run(project, DIFFERENT)
    assert "8 errors" in output, output
    assert output.count("\nobjects, closures and methods cannot be shared by workers") == 8, output
    assert counts(project) == []
    assert project.left() == {}


def test_share_needs_the_scope_of_a_session(project: Session) -> None:
    """Sharing what lives shorter than the session is a usage error."""
    (Path(project.place) / "project" / "test_it.py").write_text(TESTS)
    project.start("--nixproc-share", "--nixproc-scope=module")
    assert wait(project.is_over, RUN_SECONDS)
    assert "--nixproc-share needs --nixproc-scope=session" in project.output
