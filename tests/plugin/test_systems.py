"""Systems in tests: their life, their reports, and what is left of them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pytest_nixproc.machines.process_table import environment_of, parents

BOTH = "--nixproc-manager=supervisord,sysvinit"


def left_in(root: Path) -> list[Path]:
    """Return what is left below a state root."""
    return sorted(root.iterdir()) if root.exists() else []


def test_system_is_shared_within_its_scope(project: pytest.Pytester, state_root: Path) -> None:
    """The tests of a module share one system; with scope function each has its own; nothing is left of either."""
    project.makepyfile(
        """
        seen = set()

        def test_one(nixproc_system):
            seen.add(nixproc_system.root)

        def test_two(nixproc_system):
            seen.add(nixproc_system.root)

        def test_count(request):
            # Outside of a class, a function is a class of its own (pytest's rule).
            expected = 2 if request.config.getoption("--nixproc-scope") in ("function", "class") else 1
            assert len(seen) == expected
        """
    )
    for scope in ("module", "function", "session", "class", "package"):
        result = project.runpytest_subprocess(f"--nixproc-scope={scope}", "-k", "one or two or count")
        result.assert_outcomes(passed=3)
        assert left_in(state_root) == []


def running_with(root: Path) -> list[int]:
    """Return the processes of a deployment."""
    tag = f"NIXPROC_DEPLOYMENT={root}".encode()
    return [pid for pid in parents() if tag in environment_of(pid).split(b"\0")]


@pytest.mark.parametrize("manager", ["supervisord", "sysvinit"])
def test_failing_test_shows_what_happened_meanwhile(project: pytest.Pytester, state_root: Path, manager: str) -> None:
    """A failing test's report has each instance's log of that test alone, its status, and where the state is."""
    project.makepyfile(
        """
        import requests

        def test_before(nixproc_system):
            requests.get(nixproc_system["first"].url + "/before", timeout=5)
            # supervisord passes output on, and may do so only when the next test has begun.
            nixproc_system["first"].wait_for_log("GET /before")

        def test_failing(nixproc_system):
            requests.get(nixproc_system["first"].url + "/during", timeout=5)
            raise AssertionError
        """
    )
    result = project.runpytest_subprocess(f"--nixproc-manager={manager}")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"*nixproc: {manager}, state in {state_root}/*/var*",
            "first: *",
            "*GET /during*",
            "second: *",
            "  | (nothing logged during this test)",
        ]
    )
    result.stdout.no_fnmatch_line("*GET /before*")


@pytest.mark.parametrize("manager", ["supervisord", "sysvinit"])
def test_keep_leaves_a_failed_system_to_look_at(project: pytest.Pytester, state_root: Path, manager: str) -> None:
    """A kept system runs on after pytest, which prints how to stop it; that command leaves nothing."""
    project.makepyfile("def test_failing(nixproc_system):\n    raise AssertionError\n")
    result = project.runpytest_subprocess("--nixproc-keep=failed", f"--nixproc-manager={manager}")
    (command,) = [line.split("stop:")[1].strip() for line in result.outlines if "stop:" in line]
    (root,) = left_in(state_root)
    assert command.endswith(f"end {root}")
    assert running_with(root) != []
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "stopped, and removed" in done.stdout
    assert left_in(state_root) == []
    assert running_with(root) == []


def test_system_of_a_with_block_is_told_of_and_kept(project: pytest.Pytester, state_root: Path) -> None:
    """What a test deploys for a block is gone before its report is made: it is in it all the same, and can be kept."""
    project.makepyfile("def test_failing(nixproc_deploy):\n    with nixproc_deploy():\n        assert 1 == 2, 'mine'\n")
    result = project.runpytest_subprocess()
    result.stdout.fnmatch_lines(["E * mine", "*nixproc: supervisord, state in *", "first: RUNNING *"])
    assert left_in(state_root) == []
    kept = project.runpytest_subprocess("--nixproc-keep=failed")
    (command,) = [line.split("stop:")[1].strip() for line in kept.outlines if "stop:" in line]
    subprocess.run(shlex.split(command), capture_output=True, check=True)
    assert left_in(state_root) == []


def test_failure_is_shown_beside_that_of_the_teardown(project: pytest.Pytester, state_root: Path) -> None:
    """A test that fails, and whose system does not stop cleanly, shows both, its own line first."""
    project.makepyfile(
        """
        import sys
        from pytest_nixproc import Instance, create_managed_process, ready

        TEXT = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"

        def test_failing(nixproc_deploy):
            stubborn = create_managed_process(name="it", foreground_process=sys.executable, args=["-c", TEXT])
            with nixproc_deploy({"it": Instance(stubborn, ready=ready.log("up"), stop_timeout=0.5)}):
                assert 1 == 2, "mine"
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['>*assert 1 == 2, "mine"', "E*AssertionError: mine", "E*TeardownError: *"])
    assert left_in(state_root) == []


def test_stop_refuses_a_system_that_a_run_uses(project: pytest.Pytester, state_root: Path) -> None:
    """``stop`` is for kept systems: one in use is left to its run, whose process is named."""
    project.makepyfile(
        """
        import os, subprocess, sys

        def test_in_use(nixproc_system):
            argv = [sys.executable, "-m", "pytest_nixproc", "end", nixproc_system.root]
            done = subprocess.run(argv, capture_output=True, text=True)
            assert done.returncode == 5
            assert f"is in use by process {os.getpid()}" in done.stderr
            assert nixproc_system["first"].is_running
        """
    )
    project.runpytest_subprocess(BOTH).assert_outcomes(passed=2)
    assert left_in(state_root) == []


def test_keep_failed_keeps_no_passed_system(project: pytest.Pytester, state_root: Path) -> None:
    """A system whose tests passed is not kept by ``failed``."""
    project.makepyfile("def test_passing(nixproc_system): ...\n")
    project.runpytest_subprocess("--nixproc-keep=failed").assert_outcomes(passed=1)
    assert left_in(state_root) == []


def test_stop_refuses_what_is_no_deployment(tmp_path: Path) -> None:
    """``stop`` never removes a directory that has no journal."""
    argv = [sys.executable, "-m", "pytest_nixproc", "end", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is no deployment" in done.stderr
    assert tmp_path.is_dir()


def test_plan_starts_nothing(project: pytest.Pytester, state_root: Path) -> None:
    """``--nixproc-plan`` prints steps, places and files for each manager, and skips the tests."""
    project.makepyfile("def test_it(nixproc_system):\n    raise AssertionError\n")
    result = project.runpytest_subprocess("--nixproc-plan", BOTH)
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(
        ["supervisord: *processes.py*", "  1. start first*", "  2. start second*", "  no conflicts", "sysvinit: *"]
    )
    assert left_in(state_root) == []


def test_conflicting_model_is_refused_before_anything_starts(project: pytest.Pytester) -> None:
    """Equal ports are reported with both instances, both values and the remedy, and without a traceback."""
    project.makepyfile("def test_it(nixproc_system): ...\n")
    result = project.runpytest_subprocess("--nixproc-param=port=4999", "--nixproc-param=second_port=4999")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*NP101 error: first and second declare the same TCP port 4999*",
            "*processes.first.port = 4999*",
            "*processes.second.port = 4999*",
            "*fix: give each instance its own port*",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "pytest_nixproc/" not in result.stdout.str()
    silenced = project.runpytest_subprocess(
        "--nixproc-param=port=4999", "--nixproc-param=second_port=4999", "--nixproc-ignore=NP101", "--nixproc-plan"
    )
    silenced.stdout.fnmatch_lines(["  no conflicts"])


BAD_MODELS = {
    "syntax": ("def processes(state)\n    return {}\n", "*syntax.py:1: expected ':'*"),
    "nothing": ("value = 1\n", "*nothing.py defines no function 'processes'*"),
    "number": ("def processes(port, second_port):\n    return 3\n", "*number.py: processes() returned int*"),
    "entry": ("def processes(port, second_port):\n    return {'a': 3}\n", "*processes.a: is 3, which is no instance*"),
    "fails": ("def processes(port, second_port):\n    raise ValueError('spilt')\n", "*ValueError: spilt*"),
    "asks": (
        "def processes(port, second_port, moon):\n    return {}\n",
        "*asks for 'moon'*--nixproc-param=moon=VALUE*",
    ),
}


def test_bad_models_are_one_clear_error(project: pytest.Pytester, state_root: Path) -> None:
    """A model that cannot be read fails the set-up with one message, and no line of ours."""
    project.makepyfile(**{name: text for name, (text, _) in BAD_MODELS.items()})
    marks = [f"@pytest.mark.nixproc(model='{name}.py')\ndef test_{name}(nixproc_system): ..." for name in BAD_MODELS]
    project.makepyfile("\n".join(["import pytest", *marks]))
    result = project.runpytest_subprocess()
    result.assert_outcomes(errors=len(BAD_MODELS))
    for name, (_, message) in BAD_MODELS.items():
        said = result.stdout.str().partition(f"ERROR at setup of test_{name}[")[2].partition("ERROR at setup of ")[0]
        assert fnmatchcase(said.replace("\n", " "), message)
    assert "pytest_nixproc/" not in result.stdout.str()
    assert left_in(state_root) == []


def test_progress_of_a_long_deployment(project: pytest.Pytester) -> None:
    """A deployment that takes longer than two seconds says what it waits for."""
    (project.path / "processes.py").write_text(
        "from pytest_nixproc import Instance, create_managed_process, ready\n"
        "def processes(state, port, second_port):\n"
        "    late = create_managed_process(name='late', foreground_process='/bin/sh',\n"
        "        args=['-c', f'sleep 2.2; : > {state.tmp_dir}/here; exec sleep 60'])\n"
        "    return {'late': Instance(late, ready=ready.file(f'{state.tmp_dir}/here'))}\n"
    )
    project.makepyfile("def test_it(nixproc_system): ...\n")
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["nixproc: 0 of 1 instances are ready, waiting for late: file */here does not exist"])


def test_deploy_factory_raises_what_went_wrong(project: pytest.Pytester, state_root: Path) -> None:
    """A test that deploys by itself gets our exceptions, params of its own, and a system that is gone afterwards."""
    project.makepyfile(
        """
        import os
        import pytest
        from pytest_nixproc.errors import ConflictError

        def test_it(nixproc_deploy, request):
            with nixproc_deploy("processes.py") as system:
                root = system.root
                assert system["first"].listening == {system["first"].port}
            assert not os.path.exists(root)
            with pytest.raises(ConflictError):
                with nixproc_deploy("processes.py", params={"port": 4998, "second_port": 4998}):
                    raise AssertionError
        """
    )
    project.runpytest_subprocess(BOTH).assert_outcomes(passed=2)
    assert left_in(state_root) == []


def test_model_fixture_can_be_overridden(project: pytest.Pytester) -> None:
    """A module chooses its model by overriding the fixture: as a function, a mapping or a ProcessesModel."""
    project.makepyfile(
        """
        import pytest
        from pytest_nixproc import ProcessesModel
        from processes import server

        @pytest.fixture(scope="module", params=["function", "mapping", "model"])
        def nixproc_model(request):
            def processes(port):
                return {"alone": server("alone", port)}
            port = int(request.config.getini("nixproc_param")[0].split("=")[1])
            mapping = processes(port)
            if request.param == "function":
                return lambda port, second_port: mapping
            return mapping if request.param == "mapping" else ProcessesModel(mapping)

        def test_it(nixproc_system):
            assert list(nixproc_system) == ["alone"]
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=3)


def test_pytest_switches_work_as_usual(project: pytest.Pytester, state_root: Path) -> None:
    """-x, -k, --setup-show and -p no:nixproc do what they always do; an interrupted run leaves nothing."""
    project.makepyfile(
        """
        def test_one(nixproc_system):
            raise AssertionError

        def test_two(nixproc_system): ...
        """
    )
    project.runpytest_subprocess("-x").assert_outcomes(failed=1)
    project.runpytest_subprocess("-k", "two").assert_outcomes(passed=1, deselected=1)
    project.runpytest_subprocess("--setup-show", "-k", "two").stdout.fnmatch_lines(["*SETUP*nixproc_system*"])
    without = project.runpytest_subprocess("-p", "no:nixproc", "-k", "two", "-o", "addopts=", "-W", "default")
    without.stdout.fnmatch_lines(["*fixture 'nixproc_system' not found*"])
    assert left_in(state_root) == []


def test_workers_of_xdist_deploy_side_by_side(project: pytest.Pytester, state_root: Path) -> None:
    """Under ``-n 2`` each worker has systems of its own, and nothing is left."""
    project.makepyfile(
        """
        import os, socket
        import pytest

        @pytest.fixture
        def params():
            probes = [socket.socket() for _ in range(2)]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            ports = [probe.getsockname()[1] for probe in probes]
            for probe in probes:
                probe.close()
            return {"port": ports[0], "second_port": ports[1]}

        @pytest.mark.parametrize("number", range(4))
        def test_it(nixproc_deploy, params, number):
            with nixproc_deploy("processes.py", params=params) as system:
                assert system["second"].is_running
        """
    )
    project.runpytest_subprocess("-n", "2").assert_outcomes(passed=4)
    assert left_in(state_root) == []


def test_deployment_of_the_usual_model(project: pytest.Pytester) -> None:
    """A test that deploys by itself without naming a model gets that of the option, or of an overriding fixture."""
    project.makepyfile(
        test_option="""
        def test_option(nixproc_deploy):
            with nixproc_deploy() as system:
                assert list(system) == ["first", "second"]
        """,
        test_override="""
        import pytest
        from processes import server

        @pytest.fixture(scope="module")
        def nixproc_model():
            return lambda port, second_port: {"alone": server("alone", port)}

        def test_override(nixproc_deploy):
            with nixproc_deploy() as system:
                assert list(system) == ["alone"]
        """,
    )
    project.runpytest_subprocess().assert_outcomes(passed=2)


def test_markers_name_files_beside_their_tests(project: pytest.Pytester) -> None:
    """The file of a model that a marker names is found beside the test, however long the system lives."""
    for name in ("one", "two"):
        directory = project.mkdir(name)
        text = f"processes: {{{name}: {{pkg: {{name: {name}, foregroundProcess: /bin/sleep, args: [60]}}}}}}"
        (directory / "model.yaml").write_text(text)
        (directory / f"test_{name}.py").write_text(
            "import pytest\n@pytest.mark.nixproc(model='model.yaml')\n"
            f"def test_marked(nixproc_system):\n    assert list(nixproc_system) == ['{name}']\n"
        )
    project.runpytest_subprocess("-o", "nixproc_param=", "--nixproc-scope=session").assert_outcomes(passed=2)


def test_upgrade_to_a_file(project: pytest.Pytester) -> None:
    """The file of a model that a system is upgraded to is found beside the test, like that which is deployed."""
    program = "foregroundProcess: /bin/sleep, args: [60]"
    directory = project.mkdir("deeper")
    for name in ("one", "two"):
        text = f"processes: {{{name}: {{pkg: {{name: {name}, {program}}}}}}}"
        (directory / f"{name}.yaml").write_text(text)
    (directory / "test_upgrade.py").write_text(
        "def test_upgrade(nixproc_deploy):\n"
        "    with nixproc_deploy('one.yaml', params={}) as system:\n"
        "        system.switch('two.yaml')\n"
        "        assert list(system) == ['two']\n"
    )
    project.runpytest_subprocess("-o", "nixproc_param=").assert_outcomes(passed=1)


@pytest.mark.parametrize("given", [(), ("test_it.py",), ("test_it.py::test_it",)], ids=["nothing", "file", "test"])
def test_unused_plugin_imports_nothing_heavy(pytester: pytest.Pytester, given: tuple[str, ...]) -> None:
    """A session that uses no system loads none of the libraries that systems need, whatever it is given."""
    pytester.makepyfile(
        test_it="""
        import sys

        def test_it():
            heavy = {"docker", "requests", "psutil", "supervisor", "xmlrpc.client", "yaml", "pytest_nixproc._registry"}
            assert heavy & set(sys.modules) == set()
        """
    )
    # Not forked from where everything is imported.
    arguments = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *given)
    pytester.run(sys.executable, *arguments).assert_outcomes(passed=1)


def test_only_what_is_chosen_is_imported(project: pytest.Pytester) -> None:
    """A session with one manager imports neither the others, nor machines and sources that it does not use."""
    project.makepyfile(
        """
        import sys

        def test_it(nixproc_system):
            assert nixproc_system["first"].is_running
            loaded = set(sys.modules)
            from pytest_nixproc._registry import Registry
            modules = {manager.generator.__module__ for manager in Registry().managers.values()}
            others = {".".join(module.split(".")[:3]) for module in modules} - {"pytest_nixproc.managers.sysvinit"}
            assert len(others) > 5
            unused = ("pytest_nixproc.machines.nspawn", "pytest_nixproc.sources.nix.", *others)
            assert [module for module in loaded if module.startswith(unused)] == []
        """
    )
    # Not forked from where everything is imported.
    arguments = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--nixproc-manager=sysvinit")
    project.run(sys.executable, *arguments).assert_outcomes(passed=1)
