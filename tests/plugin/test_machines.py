"""Systems on throwaway machines, as a user's tests see them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixproc.machines.nspawn import Nspawn

OPTION = "--nixproc-machine=nspawn"
REQUIRED = os.environ.get("NIXPROC_REQUIRE", "").split(",")


@pytest.fixture(autouse=True)
def unrequired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what the suite requires: not every manager works on every machine."""
    monkeypatch.delenv("NIXPROC_REQUIRE", raising=False)


@pytest.fixture
def nspawn() -> None:
    """Go on only where there can be such machines."""
    if reason := Nspawn.unavailable_reason():
        (pytest.fail if "nspawn" in REQUIRED else pytest.skip)(f"machine nspawn cannot run here: {reason}")


USES_MACHINE = """
    import requests

    def test_one(nixproc_machine, nixproc_system):
        assert nixproc_machine is nixproc_system.machine
        assert nixproc_machine.name == "nspawn"
        assert requests.get(nixproc_system["first"].url, timeout=5).status_code == 200
        assert nixproc_machine.succeed("cat /proc/1/comm") == "systemd\\n"
        nixproc_machine.succeed("useradd visitor")

    def test_two(nixproc_machine, nixproc_deploy):
        nixproc_machine.succeed("id visitor")
"""


@pytest.mark.usefixtures("nspawn")
def test_machine_lives_as_long_as_the_system(project: pytest.Pytester, state_root: Path) -> None:
    """The tests of a module share a machine, another module gets another one, and none is left."""
    project.makepyfile(
        test_first=USES_MACHINE, test_second="def test_new(nixproc_machine): nixproc_machine.fail('id visitor')"
    )
    project.runpytest_subprocess(OPTION, "--nixproc-manager=supervisord,sysvinit").assert_outcomes(passed=6)
    assert list(state_root.iterdir()) == []


@pytest.mark.usefixtures("nspawn")
def test_equal_ports_in_two_sessions_at_once(project: pytest.Pytester) -> None:
    """Two sessions whose machines have networks of their own use the same fixed ports at the same time."""
    meeting = project.path / "meeting"
    meeting.mkdir()
    project.makepyfile(
        f"""
        import os, time, requests

        def test_it(nixproc_system):
            assert requests.get(nixproc_system["first"].url, timeout=5).status_code == 200
            nixproc_system.machine.wait_for_open_port(nixproc_system["first"].port)
            open(f"{meeting}/{{os.getpid()}}", "w").close()
            deadline = time.monotonic() + 30
            while len(os.listdir("{meeting}")) < 2:
                assert time.monotonic() < deadline, "the other session does not come"
                time.sleep(0.01)
            assert nixproc_system["first"].is_running
            nixproc_system.assert_no_conflicts()
        """
    )
    argv = [sys.executable, "-m", "pytest", OPTION, "--nixproc-network=private"]
    sessions = [subprocess.Popen(argv, cwd=project.path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [session.communicate()[0] for session in sessions]
    assert [session.returncode for session in sessions] == [0, 0], "\n".join(outputs)


@pytest.mark.usefixtures("nspawn")
def test_crash_and_start_in_a_test(project: pytest.Pytester, state_root: Path) -> None:
    """A test may put the machine down; the system on it is gone then, which is no error of the scope."""
    project.makepyfile(
        """
        import pytest
        from pytest_nixproc.errors import NixprocError

        def test_it(nixproc_machine, nixproc_system):
            nixproc_machine.crash()
            with pytest.raises(NixprocError, match="was crashed by a test"):
                nixproc_machine.succeed("true")
            assert not nixproc_system["first"].is_running
            assert "GET" not in nixproc_system["first"].log
            nixproc_machine.start()
            assert not nixproc_system["first"].is_running
        """
    )
    project.runpytest_subprocess(OPTION).assert_outcomes(passed=1)
    assert list(state_root.iterdir()) == []


@pytest.mark.usefixtures("nspawn")
@pytest.mark.parametrize("verb", ["", "nixproc_machine.wait_until_fails('true')"])
def test_machine_that_dies_is_an_error(project: pytest.Pytester, state_root: Path, verb: str) -> None:
    """A machine that dies by itself fails the test that uses it next, and its scope, by name and with its console."""
    project.makepyfile(
        f"""
        import os, select, signal
        from pytest_nixproc.machines.process_table import environment_of, own_pid, parents

        def test_it(nixproc_machine, nixproc_system):
            tag = nixproc_machine.spec.tag.encode()
            tagged = [pid for pid in parents() if tag in environment_of(pid).split(b"\\0")]
            [victim] = [pid for pid in tagged if own_pid(pid) == 1]
            end = os.pidfd_open(victim)
            os.kill(victim, signal.SIGKILL)
            assert select.select([end], [], [], 30)[0]
            {verb}
        """
    )
    result = project.runpytest_subprocess(OPTION)
    result.assert_outcomes(errors=1, **({"failed": 1} if verb else {"passed": 1}))
    result.stdout.fnmatch_lines(["*machine nspawn has died: systemd-nspawn *"])
    result.stdout.fnmatch_lines(["*end of its console:*"])
    assert list(state_root.iterdir()) == []


@pytest.mark.usefixtures("nspawn")
def test_kept_system_keeps_its_machine(project: pytest.Pytester, state_root: Path) -> None:
    """A system that is kept can be looked at on its machine, and the command that is printed ends both."""
    project.makepyfile("def test_it(nixproc_system): assert False")
    result = project.runpytest_subprocess(OPTION, "--nixproc-keep=failed")
    result.assert_outcomes(failed=1)
    command = next(line for line in result.outlines if "stop: " in line).partition("stop:")[2]
    (place,) = state_root.iterdir()
    assert len(list(place.iterdir())) == 3
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(state_root.iterdir()) == []
    again = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert "is no deployment" in again.stderr


def test_plan_boots_nothing(project: pytest.Pytester, state_root: Path) -> None:
    """A plan for another machine is printed without one."""
    project.makepyfile("def test_it(nixproc_system): pass")
    result = project.runpytest_subprocess(OPTION, "--nixproc-plan")
    reason = Nspawn.unavailable_reason()
    result.stdout.fnmatch_lines([f"*cannot run here: {reason}*"] if reason else ["*start first*", "*start second*"])
    assert not state_root.exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--nixproc-network=private"], "*machine host has the host's; only a throwaway machine has*"),
        (["--nixproc-network=none", OPTION], "*--nixproc-network=none: choose one of host, private*"),
        ([OPTION, "--nixproc-share", "--nixproc-scope=session"], "*--nixproc-share needs --nixproc-machine=host*"),
        ([OPTION, "--nixproc-manager=docker", "--nixproc-require=docker"], "*docker: the engine's containers would*"),
    ],
)
def test_options_that_contradict_each_other(project: pytest.Pytester, options: list[str], problem: str) -> None:
    """What a machine cannot have is a usage error before anything runs."""
    project.makepyfile("def test_it(nixproc_system): pass")
    result = project.runpytest_subprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([problem])


JOURNAL_MODEL = """
    from pytest_nixproc import Instance, create_managed_process

    def processes(**_):
        text = "echo one; printf 'zwei %s' ü >&2; echo; exec sleep 1000"
        overrides = {"systemd": {"Service": {"StandardOutput": "journal"}}}
        options = {"foreground_process": "/bin/sh", "args": ["-c", text], "overrides": overrides}
        return {"it": Instance(create_managed_process(name="a-b", **options))}
"""

USES_JOURNAL = """
    def test_journal(nixproc_machine, nixproc_system):
        it = nixproc_system["it"]
        nixproc_machine.wait_until_succeeds("journalctl --sync && journalctl --quiet | grep zwei")
        sizes = nixproc_system.log_sizes()
        assert it.log.split() == ["one", "zwei", "ü"]
        it.restart()
        nixproc_machine.wait_until_succeeds("journalctl --sync && [ $(journalctl --quiet | grep -c zwei) = 2 ]")
        assert nixproc_system.logs_since(sizes)["it"].split() == ["one", "zwei", "ü"]
"""


@pytest.mark.usefixtures("nspawn")
def test_log_in_the_journal(project: pytest.Pytester) -> None:
    """The first process of a machine runs services, and a log may be in its journal, across restarts."""
    project.makepyfile(journal_model=JOURNAL_MODEL, test_journal=USES_JOURNAL)
    options = "--nixproc-manager=systemd", "--nixproc-model=journal_model.py"
    project.runpytest_subprocess(OPTION, *options, "test_journal.py").assert_outcomes(passed=1)


@pytest.mark.usefixtures("nspawn")
def test_project_is_seen(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the root directory of the tests is seen on a machine, although it lies where machines have their own."""
    # Nobody's home is shown as a whole, and pytester makes this one.
    monkeypatch.setenv("HOME", "/root")
    project.makefile(".txt", data="mine")
    project.mkdir("inner").joinpath("test_it.py").write_text(
        "def test_it(nixproc_machine, request):\n"
        "    assert nixproc_machine.succeed(['cat', f'{request.config.rootpath}/data.txt']) == 'mine'\n"
    )
    # Python's own list of directories would have it, but for this.
    words = ["inner", "--rootdir=.", "--import-mode=importlib", OPTION]
    others = "sys.path = [each for each in sys.path if each not in ('', os.getcwd())]"
    command = f"import os, sys, pytest; {others}; sys.exit(pytest.main({words}))"
    project.run(sys.executable, "-c", command).assert_outcomes(passed=1)
