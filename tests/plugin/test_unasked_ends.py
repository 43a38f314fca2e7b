"""Instances that end by themselves while tests run: the tests in which they do fail, and so do their systems."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

END = """
import os, signal
import pytest

def end(instance, number=signal.SIGKILL):
    # Behind everybody's back, as a server that crashes; the next request finds it gone.
    pid = instance.pid
    os.kill(pid, number)
    while instance.pid == pid:
        pass
"""


def failures(result: pytest.RunResult) -> dict[str, str]:
    """Return the tests that have failed, each with the word of the summary for how."""
    found = (re.match(r"(FAILED|ERROR) [^:\s]+::(\S+)", line) for line in result.outlines)
    return {match[2]: match[1] for match in found if match}


@pytest.mark.parametrize("manager", ["supervisord", "sysvinit"])
def test_end_fails_the_test_and_the_system(project: pytest.Pytester, manager: str) -> None:
    """A test that notices nothing fails when an instance has ended in it, and so does the teardown of the system."""
    project.makepyfile(
        END
        + """
def test_unaware(nixproc_system):
    end(nixproc_system["second"])

def test_after_it(nixproc_system):
    assert nixproc_system["first"].is_running
"""
    )
    result = project.runpytest_subprocess(f"--nixproc-manager={manager}")
    name = f"[{manager}]"
    assert failures(result) == {f"test_unaware{name}": "FAILED", f"test_after_it{name}": "ERROR"}
    result.assert_outcomes(passed=1, failed=1, errors=1)
    problem = "NP215 error: second was killed by signal 9 within * s after it was ready, by itself: *"
    result.stdout.fnmatch_lines([problem, "    seen in *::test_unaware*"])
    result.stdout.fnmatch_lines(["*_ test_unaware* _*", problem, "*nixproc: *, state in *", "second: *"])


def test_end_of_a_function_scoped_system_is_told_once(project: pytest.Pytester) -> None:
    """The teardown of a system that only one test had does not tell again what that test has failed for."""
    project.makepyfile(END + "def test_unaware(nixproc_system):\n    end(nixproc_system['second'])\n")
    result = project.runpytest_subprocess("--nixproc-scope=function")
    result.assert_outcomes(failed=1)


def test_end_in_a_block(project: pytest.Pytester) -> None:
    """The end of a ``with`` block fails the test, and its report has the instance's status."""
    project.makepyfile(
        END + "def test_unaware(nixproc_deploy):\n    with nixproc_deploy() as system:\n        end(system['second'])\n"
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*second ended, and nobody has stopped it", "*nixproc: *, state in *", "second: *"])


def test_failing_test_shows_the_end(project: pytest.Pytester) -> None:
    """A test that fails for another reason keeps it, and its report has the end besides."""
    project.makepyfile(
        END + "def test_aware(nixproc_system):\n    end(nixproc_system['second'])\n    assert 1 == 2, 'mine'\n"
    )
    result = project.runpytest_subprocess("--nixproc-scope=function")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*mine", "*nixproc: ended during this test*", "NP215 error: second *"])


@pytest.mark.parametrize(("own", "shown"), [("assert 1 == 2, 'mine'", "E*mine"), ("pass", "*guardian*is gone*")])
def test_look_that_fails(project: pytest.Pytester, own: str, shown: str) -> None:
    """Where nobody can look any more, a failing test keeps its failure, and another one fails with one clear error."""
    project.makepyfile(
        f"""
import os, signal

def test_it(nixproc_system):
    guardian = nixproc_system.machine.lifecycle.guardian.connection.process
    pid = nixproc_system["second"].pid
    os.kill(guardian.pid, signal.SIGKILL)
    guardian.wait()
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{{pid}}/exe"):
        pass
    {own}
"""
    )
    result = project.runpytest_subprocess("--nixproc-manager=sysvinit")
    result.stdout.fnmatch_lines(["*_ test_it* _*", shown])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result.stdout.no_fnmatch_line("*pytest_nixproc/*.py:*")
    assert failures(result)["test_it[sysvinit]"]
    subprocess.run([sys.executable, "-m", "pytest_nixproc", "reap"], capture_output=True, check=False)


def test_end_in_a_fixture(project: pytest.Pytester) -> None:
    """An end is that test's in whose set-up or teardown it happens."""
    project.makepyfile(
        END
        + """
@pytest.fixture
def early(nixproc_system):
    end(nixproc_system["first"])

@pytest.fixture
def late(nixproc_system):
    yield
    end(nixproc_system["second"])

def test_early(early): pass
def test_late(late): pass
def test_neither(nixproc_system): pass
"""
    )
    result = project.runpytest_subprocess("--nixproc-scope=session", "-k", "early or late")
    name = "[supervisord]"
    assert failures(result) == {f"test_early{name}": "ERROR", f"test_late{name}": "ERROR"}


@pytest.mark.parametrize(
    "action",
    [
        "second.stop(); second.start()",
        "second.restart()",
        "second.kill(); second.start()",
        "with second.stopped(): pass",
        "with second.paused(): pass",
        "second.reload; second.stop()",
        "second.kill()",
    ],
)
def test_what_a_test_does_is_no_end(project: pytest.Pytester, action: str) -> None:
    """Tests may stop and kill instances, and leave them so."""
    project.makepyfile(f"def test_it(nixproc_system):\n    second = nixproc_system['second']\n    {action}\n")
    project.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("option", ["--nixproc-ignore=NP215", "--nixproc-select=NP1"])
def test_rule_can_be_left_out(project: pytest.Pytester, option: str) -> None:
    """The rule is one like any other: who does not want it leaves it out."""
    project.makepyfile(END + "def test_unaware(nixproc_system):\n    end(nixproc_system['second'])\n")
    project.runpytest_subprocess(option).assert_outcomes(passed=1)


def test_items_of_a_model_file(project: pytest.Pytester) -> None:
    """An instance that ends while the items of its model are done fails one of them, and the teardown."""
    project.makeconftest(
        """
        import os, signal

        def pytest_runtest_call(item):
            if item.name.startswith("is_ready") and "second" in item.nodeid:
                first = item.deployed.system["first"]
                pid = first.pid
                os.kill(pid, signal.SIGKILL)
                while first.pid == pid:
                    pass
        """
    )
    result = project.runpytest_subprocess("processes.py", "-k", "is_ready or tears_down_clean")
    name = "[supervisord]"
    assert failures(result) == {f"second::is_ready{name}": "FAILED", f"tears_down_clean{name}": "FAILED"}
    result.stdout.fnmatch_lines(["NP215 error: first was killed by signal 9 *"])


def test_restart_by_the_manager_is_a_warning(project: pytest.Pytester) -> None:
    """What its manager starts again, as the model says, is told at the end of the session, and fails nothing."""
    model = project.path / "processes.py"
    model.write_text(
        model.read_text().replace(
            'server("second", second_port, dependencies=[first])',
            'server("second", second_port, overrides={"supervisord": {"autorestart": "true"}})',
        )
    )
    project.makepyfile(
        END
        + """
def test_unaware(nixproc_system):
    second = nixproc_system["second"]
    end(second)
    second.wait_ready()
"""
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["NP215 warning: second ended, and its manager has started it again"])
