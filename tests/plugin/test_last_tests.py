"""The end of a point with its last test: whose the problems of a teardown are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

LEAVES = """
import sys

from pytest_nixproc import Instance, create_managed_process

SHELL = "sleep 1000 & exec python3 -m http.server --bind 127.0.0.1 {port}"


def processes(*, port: int):
    wrapper = create_managed_process(name="it", foreground_process="/bin/sh", args=["-c", SHELL.format(port=port)])
    return {"it": Instance(wrapper, port=port)}
"""


@pytest.fixture
def leaving(project: pytest.Pytester, free_ports: Callable[[int], list[int]]) -> list[str]:
    """Return the options that run the tests of a project under two managers, on a model that leaves a process."""
    project.makepyfile(leaves=LEAVES)
    managers = "--nixproc-manager=supervisord,sysvinit"
    return [managers, "--nixproc-model=leaves.py", f"--nixproc-param=port={free_ports(1)[0]}", "-rE"]


@pytest.mark.parametrize("scope", ["module", "session"])
def test_problems_are_those_of_the_last_test(project: pytest.Pytester, leaving: list[str], scope: str) -> None:
    """They stand at the last test of their manager, which they name, and the next manager's first test runs."""
    project.makepyfile(
        """
        def test_first(nixproc_system): ...

        def test_without(): ...

        def test_last(nixproc_system): ...
        """
    )
    result = project.runpytest_subprocess(*leaving, f"--nixproc-scope={scope}")
    result.assert_outcomes(passed=5, errors=2)
    for manager in ("supervisord", "sysvinit"):
        heading = f"*ERROR at teardown of test_last?{manager}?*"
        left = "  process * of it was left behind, and killed: sleep 1000"
        result.stdout.fnmatch_lines([heading, f"the system on {manager} was not stopped cleanly", left])


def test_what_depends_on_a_system_ends_before_it(project: pytest.Pytester) -> None:
    """Fixtures of the user's own still have their system when they end, and it is one for all tests of a manager."""
    project.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def client(nixproc_system):
            yield nixproc_system["first"].pid
            assert nixproc_system["first"].is_running

        def test_first(client): ...

        def test_last(client, nixproc_system):
            assert nixproc_system["first"].pid == client
        """
    )
    result = project.runpytest_subprocess("--nixproc-manager=supervisord,sysvinit")
    result.assert_outcomes(passed=4)


def test_both_problems_of_a_last_test(project: pytest.Pytester, leaving: list[str]) -> None:
    """A problem of the test's own fixture does not hide that of the system, nor keep it from ending."""
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        def own():
            yield
            raise RuntimeError("mine")

        def test_it(nixproc_system, own): ...
        """
    )
    result = project.runpytest_subprocess(*leaving)
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["*teardown of test_it?supervisord?*", "*mine*", "*the system on supervisord was not*"])
