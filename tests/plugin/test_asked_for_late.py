"""Tests that pytest does not parametrize: those of unittest, and those that ask for a fixture when they run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

TESTS = """
import unittest

import pytest

pytestmark = pytest.mark.nixproc(params={{"port": {0}, "second_port": {1}}})


class TestUnit(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _have_system(self, nixproc_system):
        self.system = nixproc_system

    def test_runs(self):
        assert self.system["first"].is_running


def test_dynamic(request):
    assert request.getfixturevalue("nixproc_system")["second"].is_running


def test_parametrized(nixproc_system):
    assert nixproc_system["first"].is_running
"""

TOO_LONG = """
import pytest

@pytest.fixture(scope="session")
def client(nixproc_system): ...

def test_it(client): ...
"""


def test_they_have_the_only_system(project: pytest.Pytester, free_ports: Callable[[int], list[int]]) -> None:
    """With one manager they have its system; with several, a sentence says why that cannot be."""
    project.makepyfile(TESTS.format(*free_ports(2)))
    result = project.runpytest_subprocess("--nixproc-model=processes.py")
    result.assert_outcomes(passed=3)
    result = project.runpytest_subprocess("--nixproc-model=processes.py", "--nixproc-manager=sysvinit,supervisord")
    result.assert_outcomes(passed=2, failed=1, errors=1)
    sentence = "this test is for 2 points of the matrix (sysvinit, supervisord), and request.getfixturevalue *"
    result.stdout.fnmatch_lines([sentence, "fix: choose one manager, or let a test function name nixproc_system *"])
    result.stdout.no_fnmatch_line("*AttributeError*")


def test_fixture_that_would_outlive_the_system(project: pytest.Pytester) -> None:
    """A fixture of a wider scope than the system's is told the option that widens it."""
    project.makepyfile(TOO_LONG)
    result = project.runpytest_subprocess("--nixproc-model=processes.py")
    result.assert_outcomes(errors=1)
    sentence = "nixproc_system lives for a module, and a fixture of scope session asks for it"
    result.stdout.fnmatch_lines([sentence, "fix: let --nixproc-scope be session"])
