"""At which points tests run, and what is said about points that cannot be had."""

from __future__ import annotations

import os
import re

import pytest

from pytest_nixproc._plugin.matrix import no_accounts_reason
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.host import Host

USES_SYSTEM = """
    def test_proxy(nixproc_system):
        assert list(nixproc_system) == ["first", "second"]
        assert all(instance.is_running for instance in nixproc_system.values())
"""


def test_each_manager_is_a_readable_parameter(project: pytest.Pytester) -> None:
    """A test that uses a system runs once for each chosen manager, which its id names."""
    project.makepyfile(USES_SYSTEM)
    result = project.runpytest_subprocess("-v", "--nixproc-manager=supervisord,sysvinit")
    result.stdout.fnmatch_lines(["*::test_proxy?supervisord? PASSED*", "*::test_proxy?sysvinit? PASSED*"])


def test_default_is_supervisord(project: pytest.Pytester) -> None:
    """Without a choice, supervisord deploys, and the header says so."""
    project.makepyfile(USES_SYSTEM)
    result = project.runpytest_subprocess("--collect-only")
    result.stdout.fnmatch_lines(
        ["nixproc: manager supervisord,*", "collected 1 item", "*<Function test_proxy?supervisord?>"]
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--nixproc-manager=upstart", "*unknown process manager 'upstart'*"),
        ("--nixproc-profile=privileged", "*the profile privileged on machine host needs *--nixproc-disposable-host*"),
        ("--nixproc-scope=galaxy", "*--nixproc-scope=galaxy: choose one of session*"),
        ("--nixproc-stop-timeout=-1", "*--nixproc-stop-timeout=-1: give a positive number*"),
    ],
)
def test_bad_options_are_usage_errors(project: pytest.Pytester, argument: str, message: str) -> None:
    """An option that cannot be fulfilled ends pytest with exit status 4 and one line that names it."""
    project.makepyfile(USES_SYSTEM)
    result = project.runpytest_subprocess(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_precedence_of_options(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line beats the environment, which beats the ini file."""
    with (project.path / "tox.ini").open("a") as ini:
        ini.write("\nnixproc_manager = upstart\n")
    project.makepyfile(USES_SYSTEM)
    assert project.runpytest_subprocess().ret == pytest.ExitCode.USAGE_ERROR
    monkeypatch.setenv("NIXPROC_MANAGER", "sysvinit")
    ids = ("--collect-only", "-q")
    project.runpytest_subprocess(*ids).stdout.fnmatch_lines(["*::test_proxy?sysvinit?"])
    result = project.runpytest_subprocess(*ids, "--nixproc-manager=supervisord")
    result.stdout.fnmatch_lines(["*::test_proxy?supervisord?"])


ABSENT = """
    import pytest
    from pytest_nixproc import hookimpl
    from pytest_nixproc.managers.api import Capabilities, Manager

    @hookimpl
    def nixproc_managers():
        return [Manager("absent", None, None, Capabilities("daemon"), lambda machine: "no tool: install the tool")]
"""


def third_party_manager(project: pytest.Pytester) -> None:
    """Install a distribution with a manager that cannot run here, as an entry point of the project's directory."""
    project.makepyfile(absent_manager=ABSENT)
    info = project.path / "absent-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: absent\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest_nixproc]\nabsent = absent_manager\n")


def test_absent_managers_are_skipped_with_the_reason(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """``all`` runs what can run here, and shows the others, third parties' included, as skipped with the remedy."""
    third_party_manager(project)
    monkeypatch.setenv("PYTHONPATH", str(project.path))
    project.makepyfile(USES_SYSTEM)
    result = project.runpytest_subprocess("-v", "-rs", "--nixproc-manager=all")
    cannot_run = [name for name, manager in Registry().managers.items() if manager.unavailable_reason(Host)]
    result.assert_outcomes(passed=len(Registry().managers) - len(cannot_run), skipped=1 + len(cannot_run))
    result.stdout.fnmatch_lines(["SKIPPED*absent cannot run here: no tool: install the tool*"])
    listing = project.runpytest_subprocess("--nixproc-list-managers")
    listing.stdout.fnmatch_lines(["supervisord: can run here", "*", "absent: cannot run here: no tool: install the*"])
    unknown = project.runpytest_subprocess("--nixproc-list-managers", "--nixproc-machine=nope")
    assert unknown.ret == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in unknown.stderr.str()
    required = project.runpytest_subprocess("--nixproc-require=supervisord,absent")
    assert required.ret == pytest.ExitCode.USAGE_ERROR
    required.stderr.fnmatch_lines(["*absent: no tool: install the tool*"])


def test_plan_for_all_managers(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan starts nothing: it shows the files of all managers, those that cannot run here too, always the same."""
    project.makepyfile(USES_SYSTEM)
    outputs = set()
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        result = project.runpytest_subprocess("-v", "--nixproc-plan", "--nixproc-manager=all")
        result.assert_outcomes(skipped=len(Registry().managers))
        lines = result.outlines
        outputs.add("\n".join(lines[next(i for i, line in enumerate(lines) if "nixproc: plan" in line) : -1]))
    (output,) = outputs
    for name in Registry().managers:
        plan = output.partition(f"\n{name}: ")[2]
        assert re.search(r"^  \S.* \(mode 0\d{3}\):\n    \| .*\S", plan.partition("no conflicts\n")[2], re.MULTILINE)
        assert "    | " in plan
    short = project.runpytest_subprocess("--nixproc-plan", "--nixproc-manager=all")
    assert "    | " not in short.stdout.str()
    short.stdout.fnmatch_lines(["*  writes *"])


def test_marker_chooses(project: pytest.Pytester) -> None:
    """The marker narrows the managers, and gives model and params for one test or module."""
    project.makepyfile(
        other="from processes import server\ndef processes(port: int):\n    return {'alone': server('alone', port)}\n"
    )
    project.makepyfile(
        """
        import pytest

        @pytest.mark.nixproc(model="other.py", managers=["sysvinit"], params={"second_port": None})
        def test_refused(nixproc_system):
            raise AssertionError("the model takes no second_port")

        @pytest.mark.nixproc(managers=["sysvinit"])
        def test_narrow(nixproc_system, nixproc_manager, nixproc_profile, nixproc_machine, nixproc_state):
            assert nixproc_manager.name == "sysvinit"
            assert nixproc_profile == "unprivileged"
            assert nixproc_machine is nixproc_system.machine
            assert nixproc_machine.files.exists(nixproc_state.log_dir)
        """
    )
    result = project.runpytest_subprocess("-v", "--nixproc-manager=all")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*other.py: processes() has no parameter 'second_port'*"])


def test_all_profiles(project: pytest.Pytester) -> None:
    """``all`` names the profile in the ids, and skips what cannot be had here with what is missing."""
    project.makepyfile(USES_SYSTEM)
    result = project.runpytest_subprocess("-v", "-rs", "--nixproc-profile=all")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*::test_proxy?supervisord-unprivileged? PASSED*"])
    result.stdout.fnmatch_lines(["SKIPPED*the profile privileged on machine host needs *--nixproc-disposable-host*"])


def test_permission_is_not_enough(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that may be polluted has to be root's, too; what is missing is said, all of it."""
    monkeypatch.setenv("NIXPROC_DISPOSABLE_HOST", "1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert no_accounts_reason(pytestconfig, Host) == "the profile privileged on machine host needs root"
    monkeypatch.setenv("NIXPROC_DISPOSABLE_HOST", "0")
    assert "needs root and --nixproc-disposable-host" in no_accounts_reason(pytestconfig, Host)
    assert no_accounts_reason(pytestconfig, Registry().machine("nspawn")) == ""


def test_plan_of_the_profile_privileged(project: pytest.Pytester) -> None:
    """A plan needs what a deployment would need; on a throwaway machine, nothing is asked for, and none is booted."""
    project.makepyfile(USES_SYSTEM)
    options = ("--nixproc-plan", "--nixproc-profile=privileged")
    assert project.runpytest_subprocess(*options).ret == pytest.ExitCode.USAGE_ERROR
    if Registry().machine("nspawn").unavailable_reason():
        pytest.skip("no throwaway machine can run here")
    result = project.runpytest_subprocess(*options, "--nixproc-machine=nspawn")
    result.stdout.fnmatch_lines(["*1. start first*", "*no conflicts*"])


def test_marker_chooses_the_profile(project: pytest.Pytester) -> None:
    """The marker names a profile for one test; one that cannot be had is skipped, an unknown one is an error."""
    project.makepyfile(
        """
        import pytest

        @pytest.mark.nixproc(profile="privileged")
        def test_privileged(nixproc_system):
            raise AssertionError("nobody has allowed it")

        @pytest.mark.nixproc(profile="unprivileged")
        def test_unprivileged(nixproc_profile):
            assert nixproc_profile == "unprivileged"
        """
    )
    project.runpytest_subprocess("--nixproc-profile=all").assert_outcomes(passed=1, skipped=1)
    project.makepyfile(
        """
        import pytest

        @pytest.mark.nixproc(profile="royal")
        def test_it(nixproc_system): ...
        """
    )
    result = project.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*the marker nixproc has an unknown profile 'royal'*"])


def test_marker_mistakes_are_collection_errors(project: pytest.Pytester) -> None:
    """A marker that makes no sense is named where it stands, without a traceback."""
    project.makepyfile(
        """
        import pytest

        @pytest.mark.nixproc(manager="sysvinit")
        def test_it(nixproc_system): ...
        """
    )
    result = project.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*::test_it: the marker nixproc has no argument 'manager'*"])
    assert "Traceback" not in result.stdout.str()
