"""The suite as users run it: from a directory that has nothing of ours."""

from __future__ import annotations

import sys

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.host import Host
from pytest_nixproc.testing import conformance, privileged

SUITE = ("-p", "no:cacheprovider", "--pyargs", "pytest_nixproc.testing.conformance")
ABSENT = {name: reason for name, manager in Registry().managers.items() if (reason := manager.unavailable_reason(Host))}


@pytest.fixture(autouse=True)
def short_paths(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - before it sets them
    """Have temporary files made beside the directory of a test, not in it: paths of sockets have to be short."""
    monkeypatch.delenv("PYTEST_DEBUG_TEMPROOT")


def test_all_managers(pytester: pytest.Pytester) -> None:
    """``all`` runs each manager that can run here, and shows each of the others once, skipped with its reason."""
    pytest.importorskip("xdist")
    options = ("-v", "-rs", "-n", "2", "--nixproc-manager=all", "-k", "reload and daemon")
    result = pytester.runpytest_subprocess(*SUITE, *options)
    result.assert_outcomes(passed=len(Registry().managers) - len(ABSENT), skipped=len(ABSENT))
    result.stdout.fnmatch_lines(["*test_reload?supervisord-daemon?*"])
    for name, reason in ABSENT.items():
        assert f"{name} cannot run here: {' '.join(reason.split())}" in " ".join(result.outlines).replace("  ", " ")


@pytest.mark.long
def test_tests_that_are_nice(pytester: pytest.Pytester) -> None:
    """Under nice(1) too, programs are as nice as the tests, or as the model says on top of that, on every manager."""
    words = (sys.executable, "-m", "pytest", *SUITE, "--nixproc-manager=all", "-k", "test_nice or test_defaults")
    result = pytester.run("nice", "-n", "7", *words)
    result.assert_outcomes(passed=4 * (len(Registry().managers) - len(ABSENT)), skipped=len(ABSENT))


def test_required_manager(pytester: pytest.Pytester) -> None:
    """A manager that has to be there, and cannot run, is an error before any test."""
    if not ABSENT:
        pytest.skip("every manager can run here")
    name = min(ABSENT)
    result = pytester.runpytest_subprocess(*SUITE, "--nixproc-manager=all", f"--nixproc-require={name}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*  {name}: *"])


def test_unknown_manager(pytester: pytest.Pytester) -> None:
    """A manager that nobody has registered is a usage error that names those there are."""
    result = pytester.runpytest_subprocess(*SUITE, "--nixproc-manager=upstart")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown process manager 'upstart'*", "*supervisord*"])


def test_profiles_choose_the_part(pytester: pytest.Pytester) -> None:
    """The part that creates accounts is only run in the profile privileged; where it may not, it is skipped."""
    collected = pytester.runpytest_subprocess(*SUITE, "-q", "--collect-only")
    collected.stdout.no_fnmatch_line("*test_privileged.py*")
    result = pytester.runpytest_subprocess(*SUITE, "-rs", "--nixproc-profile=all", "-k", "test_shared_account")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*the profile privileged on machine host needs *--nixproc-disposable-host*"])


def test_results(pytester: pytest.Pytester) -> None:
    """What a run finds is written into a file for each manager, and printed as a table; a later run adds to it."""
    for tests in ("test_parameter and umask", "test_reload and daemon"):
        result = pytester.runpytest_subprocess(*SUITE, "--nixproc-conformance-results=found", "-k", tests)
        assert result.ret == 0
    assert [path.name for path in (pytester.path / "found").iterdir()] == ["supervisord.json"]
    table = pytester.run(sys.executable, "-m", "pytest_nixproc.testing.conformance", "found")
    table.stdout.fnmatch_lines(["| about | feature | what must hold | supervisord |", "| living | reload | * | pass |"])
    table.stdout.fnmatch_lines(["| living | restart | * | not run |", "| umask | pass |"])


@pytest.mark.parametrize("module", [conformance.living, conformance.bench, privileged])
def test_assertions_show_their_values(module: object) -> None:
    """The suite's assertions are rewritten like those of any test, without anybody's help."""
    assert type(vars(module)["__loader__"]).__name__ == "AssertionRewritingHook"
