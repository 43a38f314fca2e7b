"""Children that a test forks: they neither take down nor change what their parent has deployed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.host import Host

TEST = """
import os
import pickle

import pytest

from pytest_nixproc.errors import DeploymentError

pytestmark = pytest.mark.nixproc(params={{"port": {0}, "second_port": {1}}})
PARENT = os.getpid()


def test_child_that_goes_on_as_pytest(nixproc_system):
    if os.fork() == 0:
        assert nixproc_system["first"].is_running
        assert nixproc_system.machine.succeed("echo child") == "child\\n"
        with pytest.raises(DeploymentError, match=f"a forked child cannot start or stop .* process {{PARENT}}"):
            nixproc_system["first"].stop()
        return
    assert os.wait()[1] == 0
    assert nixproc_system["first"].is_running


def test_what_cannot_be_sent(nixproc_system):
    for handle in (nixproc_system, nixproc_system["first"]):
        with pytest.raises(TypeError, match="belongs to the process that has deployed it: pass what"):
            pickle.dumps(handle)


def test_parent_has_its_system(nixproc_system):
    assert nixproc_system["second"].is_running
    if os.getpid() != PARENT:
        return
    nixproc_system["first"].restart()
    assert nixproc_system.machine.succeed("echo parent") == "parent\\n"
"""


@pytest.mark.parametrize("manager", ["supervisord", "sysvinit", "docker", "systemd"])
def test_system_outlives_a_child(
    project: pytest.Pytester, free_ports: Callable[[int], list[int]], manager: str
) -> None:
    """A child may run pytest's tests and teardown to their end: the parent's system is still there, and clean."""
    if reason := Registry().manager(manager).unavailable_reason(Host):
        pytest.skip(f"{manager} cannot run here: {reason}")
    project.makepyfile(TEST.format(*free_ports(2)))
    options = [f"--nixproc-manager={manager}", "--nixproc-model=processes.py"]
    project.runpytest_subprocess(*options).assert_outcomes(passed=3)
