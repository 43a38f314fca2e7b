"""Model files as test modules: what is collected of them, how it is selected, and what its items find."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

BOTH = "--nixproc-manager=supervisord,sysvinit"
OF_SYSTEM = ["deploys", "has_no_conflicts", "upgrade_changes_nothing", "tears_down_clean"]
OF_INSTANCE = ["is_ready", "listens", "pid_file", "writes_only_state", "runs_as_described", "restarts_alone"]
HEAD = """
import sys
from pytest_nixproc import Instance, create_managed_process, ready

def python(name, text, *args, **parameters):
    return create_managed_process(
        name=name, foreground_process=sys.executable, args=["-I", "-S", "-c", text, *args], **parameters
    )

IDLE = "import signal; signal.pause()"
"""


def titles(*instances: str) -> set[str]:
    """Return what the items of one point are called."""
    return {*OF_SYSTEM, *(f"{instance}::{title}" for instance in instances for title in OF_INSTANCE)}


def outcomes(result: pytest.RunResult, word: str) -> set[str]:
    """Return the items whose outcome in a verbose run was ``word``, without the file."""
    return set(re.findall(rf"^[^:]+::(.+\]) {word}", "\n".join(result.outlines), re.MULTILINE))


A_POINT = len(titles("first", "second"))
"""How many items the project's model has at one point of the matrix."""


def collected(result: pytest.RunResult) -> list[str]:
    """Return the ids that a quiet collection has printed."""
    return [line for line in result.outlines if "::" in line]


def write_model(project: pytest.Pytester, text: str) -> None:
    """Replace the project's model."""
    (project.path / "processes.py").write_text(HEAD + text, encoding="utf-8")


def test_every_check_is_one_line(project: pytest.Pytester, state_root: Path) -> None:
    """A model alone gives items for the system and each instance, under each manager; all pass, and nothing is left."""
    result = project.runpytest_subprocess("-v", "processes.py", BOTH)
    expected = {f"{title}[{manager}]" for manager in ("supervisord", "sysvinit") for title in titles("first", "second")}
    assert outcomes(result, "PASSED") == expected
    result.assert_outcomes(passed=len(expected))
    assert not list(state_root.glob("*"))


def test_collecting_starts_nothing(project: pytest.Pytester, state_root: Path) -> None:
    """``--collect-only`` names the same items, in the same order each time, and makes no directory."""
    first, second = [collected(project.runpytest_subprocess("--co", "-q", "processes.py", BOTH)) for _ in range(2)]
    assert first == second
    assert len(first) == 2 * len(titles("first", "second"))
    assert "processes.py::second::listens[sysvinit]" in first
    assert not state_root.exists()


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (["processes.py::first"], 2 * len(OF_INSTANCE)),
        (["processes.py::first::listens"], 2),
        (["processes.py::first::listens[sysvinit]", "processes.py::deploys[sysvinit]"], 2),
        (["processes.py", "-k", "sysvinit and not restarts"], A_POINT - 2),
        (["processes.py", "-m", "nixproc_disturbs"], 8),
        (["processes.py", "-m", "not nixproc_item"], 0),
    ],
)
def test_items_are_selected(project: pytest.Pytester, selection: list[str], count: int) -> None:
    """Beginnings of ids, keywords and markers choose items."""
    assert len(collected(project.runpytest_subprocess("--co", "-q", BOTH, *selection))) == count


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (["processes.py::second", "processes.py::first::is_ready[sysvinit]"], 2 * len(OF_INSTANCE) + 1),
        (["processes.py", "-k", "second and listens"], 2),
    ],
)
def test_selected_items_work(project: pytest.Pytester, selection: list[str], count: int) -> None:
    """Each item works without those that are left out."""
    result = project.runpytest_subprocess(BOTH, *selection)
    result.assert_outcomes(passed=count, deselected=0 if "::" in selection[0] else 2 * A_POINT - count)


def test_unknown_selection_is_an_error(project: pytest.Pytester) -> None:
    """An id that names no instance is no empty success."""
    assert project.runpytest_subprocess("processes.py::third").ret == pytest.ExitCode.USAGE_ERROR


def test_a_point_has_one_deployment(project: pytest.Pytester) -> None:
    """The items of a point share one system: each instance is started by the deployment, and by its own restart."""
    write_model(
        project,
        "def processes(state, port, second_port):\n"
        f"    note = 'echo started >> {project.path}/log'\n"
        "    return {'it': Instance(python('it', IDLE, initialize=note))}\n",
    )
    project.runpytest_subprocess("processes.py", "--nixproc-ignore=NP214").assert_outcomes(passed=len(titles("it")))
    assert (project.path / "log").read_text(encoding="utf-8").splitlines() == ["started"] * 2


def test_names_of_test_modules_are_never_models(project: pytest.Pytester, state_root: Path) -> None:
    """A test module stays one, even given by itself and with a function of that name; an option says otherwise."""
    text = "def processes(state, port, second_port):\n    return {}\n\ndef test_it(): ...\n"
    (project.path / "test_it.py").write_text(text, encoding="utf-8")
    (project.path / "helper.py").write_text("value = 1\n", encoding="utf-8")
    project.runpytest_subprocess("test_it.py").assert_outcomes(passed=1)
    project.runpytest_subprocess("helper.py").assert_outcomes()
    assert not state_root.exists()
    project.runpytest_subprocess("--nixproc-model-files=test_i*.py").assert_outcomes(passed=5)


def test_files_that_the_option_names(project: pytest.Pytester, state_root: Path) -> None:
    """Without the option no run deploys a model by itself; with it, patterns choose among the files found."""
    (project.path / "test_other.py").write_text("def test_it(): ...\n", encoding="utf-8")
    below = project.mkdir("below")
    below.joinpath("processes.py").write_text((project.path / "processes.py").read_text("utf-8"), encoding="utf-8")
    project.runpytest_subprocess().assert_outcomes(passed=1)
    assert not state_root.exists()
    found = collected(project.runpytest_subprocess("--co", "-q", "-o", "nixproc_model_files=proc*.py, *.yaml"))
    assert len(found) == 1 + 2 * A_POINT
    found = collected(project.runpytest_subprocess("--co", "-q", "--nixproc-model-files=below/*.py"))
    assert {name.split("::")[0] for name in found} == {"below/processes.py", "test_other.py"}


def test_models_of_one_name_in_one_run(project: pytest.Pytester) -> None:
    """Two files of the same name do not meet as Python modules."""
    below = project.mkdir("below")
    below.joinpath("processes.py").write_text((project.path / "processes.py").read_text("utf-8"), encoding="utf-8")
    project.runpytest_subprocess("processes.py", "below/processes.py").assert_outcomes(passed=2 * A_POINT)


def test_a_file_can_be_both(project: pytest.Pytester) -> None:
    """The tests in a model's file run beside its items."""
    with (project.path / "processes.py").open("a", encoding="utf-8") as file:
        file.write("\ndef test_first(nixproc_system):\n    assert nixproc_system['first'].is_running\n")
    result = project.runpytest_subprocess("-v", "processes.py")
    result.assert_outcomes(passed=A_POINT + 1)
    result.stdout.fnmatch_lines(["processes.py::test_first?supervisord? PASSED*"])


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_configuration_files(project: pytest.Pytester, suffix: str) -> None:
    """A model in YAML or JSON is collected like one in Python, with leased ports."""
    text = '{"processes": {"it": {"port": "${freePort.it}", "pkg": {"name": "it", "foregroundProcess": "%s",' % (  # noqa: UP031 - braces
        "${python}"
    )
    text += ' "args": ["-m", "http.server", "${freePort.it}", "--bind", "127.0.0.1"]}}}}'
    (project.path / f"model.{suffix}").write_text(text, encoding="utf-8")
    result = project.runpytest_subprocess(f"model.{suffix}", "-v", f"--nixproc-param=python={shlex.quote(_python())}")
    result.assert_outcomes(passed=len(titles("it")))
    result.stdout.fnmatch_lines([f"model.{suffix}::it::listens?supervisord? PASSED*"])


def _python() -> str:
    import sys

    return sys.executable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def processes(port, second_port):\n    return 3\n", "*processes() returned int*"),
        ("def processes(port, second_port, moon):\n    return {}\n", "*asks for 'moon'*"),
        ("def processes(port, second_port):\n    raise ValueError('spilt')\n", "*ValueError: spilt*"),
        ("def processes(:\n", "*processes.py:*invalid syntax*"),
        ("def processes(port, second_port):\n    return {'a/b': Instance(python('it', IDLE))}\n", "*processes.a/b: *"),
    ],
)
def test_bad_models_are_one_error(project: pytest.Pytester, state_root: Path, text: str, message: str) -> None:
    """What cannot be read is an error of the collection: its text, once, and no line of ours."""
    write_model(project, text)
    result = project.runpytest_subprocess("processes.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])
    traceback = r"^\S*pytest_nixproc/\S+\.py:\d+: "
    assert not re.search(traceback, result.stdout.str(), re.MULTILINE)
    assert not state_root.exists()


def test_failed_deployment_is_told_once(project: pytest.Pytester, state_root: Path) -> None:
    """The item ``deploys`` fails with the whole reason; the others are skipped with its first line."""
    write_model(
        project,
        "def processes(port, second_port):\n"
        "    end = 'raise SystemExit(\"no disk\")'\n"
        "    dead = Instance(python('dead', end), ready=ready.file('/never'))\n"
        "    return {'dead': dead, 'idle': Instance(python('idle', IDLE))}\n",
    )
    result = project.runpytest_subprocess("processes.py", "-v", "-rs")
    result.assert_outcomes(failed=1, skipped=A_POINT - 1)
    assert outcomes(result, "FAILED") == {"deploys[supervisord]"}
    result.stdout.fnmatch_lines(
        ["dead did not start: *", "end of its log:", "no disk", "*not deployed: dead did not start*"]
    )
    assert result.stdout.str().count("no disk") == 1
    traceback = r"^\S*pytest_nixproc/\S+\.py:\d+: "
    assert not re.search(traceback, result.stdout.str(), re.MULTILINE)
    assert not list(state_root.glob("*"))
    alone = project.runpytest_subprocess("processes.py", "-k", "idle")
    alone.assert_outcomes(errors=1, skipped=len(OF_INSTANCE) - 1, deselected=A_POINT - len(OF_INSTANCE))


def test_conflicting_model_is_refused(project: pytest.Pytester) -> None:
    """A model that static rules forbid fails with the finding, and nothing is started."""
    equal = ["--nixproc-param=port=4999", "--nixproc-param=second_port=4999"]
    result = project.runpytest_subprocess("processes.py", *equal)
    result.assert_outcomes(failed=1, skipped=A_POINT - 1)
    result.stdout.fnmatch_lines(["NP101 error: first and second declare the same TCP port 4999"])


# Each writes a file when it is ready, and removes it at its end: one that is left would be taken for the next run's.
GOOD = """
import os, signal, sys

signal.pthread_sigmask(signal.SIG_BLOCK, [15])
os.symlink(str(os.getpid()), sys.argv[1])
signal.sigwait([15])
os.unlink(sys.argv[1])
"""
LISTEN = """
import os, signal, socket, sys

signal.pthread_sigmask(signal.SIG_BLOCK, [15])
listener = socket.create_server(("127.0.0.1", 0))
open(sys.argv[-1], "w").close()
signal.sigwait([15])
os.unlink(sys.argv[-1])
"""
KILL = """
import os, signal, sys

signal.pthread_sigmask(signal.SIG_BLOCK, [15])
open(sys.argv[-1], "w").close()
signal.sigwait([15])
os.unlink(sys.argv[-1])
os.kill(int(os.readlink(sys.argv[1])), 9)
os.unlink(sys.argv[1])
"""
FAULTS: dict[str, tuple[str, set[str], str]] = {
    "undeclared": (LISTEN, {"bad::listens"}, "NP203 warning: bad listens on TCP port *"),
    "disturbing": (KILL, {"bad::restarts_alone"}, "NP305 error: good (pid *) has ended while bad was stopped"),
}


@pytest.mark.parametrize("manager", ["supervisord", "sysvinit"])
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults(project: pytest.Pytester, state_root: Path, fault: str, manager: str) -> None:
    """Each fault fails the item that is about it, with the instance's name, and no other."""
    program, failed, message = FAULTS[fault]
    write_model(
        project,
        "def processes(state, port, second_port):\n"
        "    path, up = f'{state.tmp_dir}/good', f'{state.tmp_dir}/bad'\n"
        f"    good = python('good', {GOOD!r}, path)\n"
        f"    bad = python('bad', {program!r}, path, up, dependencies=[good])\n"
        "    return {'good': Instance(good, ready=ready.file(path)), 'bad': Instance(bad, ready=ready.file(up))}\n",
    )
    result = project.runpytest_subprocess("-v", "processes.py", f"--nixproc-manager={manager}")
    result.stdout.fnmatch_lines([message])
    assert {title.partition("[")[0] for title in outcomes(result, "FAILED")} == failed
    traceback = r"^\S*pytest_nixproc/\S+\.py:\d+: "
    assert not re.search(traceback, result.stdout.str(), re.MULTILINE)
    assert not list(state_root.glob("*"))


TELL = """
import os, signal, sys

signal.pthread_sigmask(signal.SIG_BLOCK, [15])
open(sys.argv[1], "w").close()
signal.sigwait([15])
os.rename(sys.argv[1], sys.argv[1] + ".stopped")
"""


def test_instance_that_ends_while_it_is_looked_at(project: pytest.Pytester) -> None:
    """One that ends when another was stopped, and is first seen as not ready, has ended: that is told once."""
    write_model(
        project,
        "import os\n"
        "def processes(state, port, second_port):\n"
        "    up = f'{state.tmp_dir}/up'\n"
        "    def answers(instance):\n"
        "        if os.path.exists(f'{up}.stopped') and instance.pid:\n"
        "            os.kill(instance.pid, 9)\n"
        "        return not os.path.exists(f'{up}.stopped')\n"
        "    good = Instance(python('good', IDLE), ready=ready.when(answers))\n"
        f"    return {{'good': good, 'bad': Instance(python('bad', {TELL!r}, up), ready=ready.file(up))}}\n",
    )
    result = project.runpytest_subprocess("processes.py", "--nixproc-manager=sysvinit", "-k", "bad")
    result.stdout.fnmatch_lines(["NP305 error: good (pid *) has ended while bad was stopped"])
    result.stdout.no_fnmatch_line("NP306*")
    result.stdout.no_fnmatch_line("*when bad was started again*")


def test_what_an_instance_leaves_is_found_when_it_is_stopped(project: pytest.Pytester, state_root: Path) -> None:
    """A child that outlives its instance is named by the restart of that instance, and killed at the end."""
    write_model(
        project,
        "from pytest_nixproc.testing.programs.models import misbehaving\n"
        "def processes(state, port, second_port):\n"
        "    told = {'escaped': f'{state.tmp_dir}/escaped'}\n"
        "    return {'bad': misbehaving('bad', state, 'daemon', 'escapes', port=port, options=told)}\n",
    )
    result = project.runpytest_subprocess("-v", "processes.py", "--nixproc-manager=sysvinit")
    result.stdout.fnmatch_lines(["NP301 error: process * of bad still runs while bad was stopped: *"])
    assert {"bad::restarts_alone[sysvinit]"} <= outcomes(result, "FAILED")
    assert not list(state_root.glob("*"))


def test_random_model_is_found_by_the_upgrade(project: pytest.Pytester) -> None:
    """A model that differs each time that it is loaded would restart everything at each upgrade."""
    write_model(
        project,
        "import secrets\n"
        "def processes(port, second_port):\n"
        "    other = Instance(python('other', IDLE, secrets.token_hex()))\n"
        "    return {'other': other, 'same': Instance(python('same', IDLE))}\n",
    )
    result = project.runpytest_subprocess("-v", "processes.py", BOTH)
    assert {title.partition("[")[0] for title in outcomes(result, "FAILED")} == {"upgrade_changes_nothing"}
    result.stdout.fnmatch_lines(["an upgrade to the same model has restarted other"])


def test_first_failure_ends_the_run_cleanly(project: pytest.Pytester, state_root: Path) -> None:
    """With ``-x`` the system is taken down at the failing item; ``--lf`` runs that item again, and no other."""
    write_model(
        project,
        "def processes(state, port, second_port):\n"
        "    up = f'{state.tmp_dir}/bad'\n"
        f"    return {{'bad': Instance(python('bad', {LISTEN!r}, up), ready=ready.file(up))}}\n",
    )
    cache = ("-o", "addopts=--strict-markers")
    project.runpytest_subprocess("-x", "processes.py", *cache).assert_outcomes(failed=1, passed=3)
    assert not list(state_root.glob("*"))
    project.runpytest_subprocess("--lf", "processes.py", *cache).assert_outcomes(
        failed=1, deselected=len(titles("bad")) - 1
    )
    assert not list(state_root.glob("*"))


@pytest.mark.parametrize("when", ["failed", "always"])
def test_kept_system(project: pytest.Pytester, state_root: Path, when: str) -> None:
    """A kept system is not taken down by the last item either, and the printed command does it."""
    write_model(
        project,
        "def processes(state, port, second_port):\n"
        "    up = f'{state.tmp_dir}/bad'\n"
        f"    return {{'bad': Instance(python('bad', {LISTEN!r}, up), ready=ready.file(up))}}\n",
    )
    result = project.runpytest_subprocess(f"--nixproc-keep={when}", "-rs", "processes.py")
    result.assert_outcomes(failed=1, passed=len(titles("bad")) - 2, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*the system is kept"])
    (command,) = [line.split("stop:")[1].strip() for line in result.outlines if "stop:" in line]
    assert len(list(state_root.iterdir())) == 1
    assert subprocess.run(shlex.split(command), capture_output=True, check=False).returncode == 0
    assert not list(state_root.glob("*"))


def test_plan(project: pytest.Pytester, state_root: Path) -> None:
    """``--nixproc-plan`` plans each point once, and starts nothing."""
    result = project.runpytest_subprocess("--nixproc-plan", "processes.py", BOTH)
    result.assert_outcomes(skipped=2 * A_POINT)
    assert len([line for line in result.outlines if "1. start first" in line]) == 2
    assert not state_root.exists()


def test_absent_manager_is_skipped_with_its_reason(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that cannot run here is named, with the reason, and costs no other its items."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project.path}/nowhere")
    result = project.runpytest_subprocess("-rs", "processes.py", "--nixproc-manager=docker,supervisord")
    result.assert_outcomes(passed=A_POINT, skipped=A_POINT)
    result.stdout.fnmatch_lines([f"SKIPPED ?{A_POINT}? *docker cannot run here: *"])


@pytest.mark.parametrize(
    "distribution",
    [
        "loadgroup",
        *(pytest.param(other, marks=pytest.mark.long) for other in ("load", "loadscope", "loadfile", "worksteal")),
    ],
)
def test_workers_share_no_point(project: pytest.Pytester, state_root: Path, distribution: str) -> None:
    """However pytest-xdist spreads tests, one worker has all items of a model, whose points use the same ports."""
    result = project.runpytest_subprocess("-n", "2", f"--dist={distribution}", "-v", "processes.py", BOTH)
    result.assert_outcomes(passed=2 * A_POINT)
    assert len({line.split("]")[0] for line in result.outlines if line.startswith("[gw")}) == 1
    assert not list(state_root.glob("*"))


def test_junit_report(project: pytest.Pytester) -> None:
    """A test case belongs to the model, or to one of its instances."""
    project.runpytest_subprocess("processes.py", "--junit-xml=report.xml").assert_outcomes(passed=A_POINT)
    cases = ET.parse(project.path / "report.xml").getroot().iter("testcase")  # noqa: S314 - our own file
    found = {f"{case.attrib['classname']}.{case.attrib['name']}" for case in cases}
    expected = (title.replace("::", ".") for title in titles("first", "second"))
    assert found == {f"processes.{title}[supervisord]" for title in expected}


def test_awkward_names(project: pytest.Pytester) -> None:
    """Whatever names instances can have are in the ids as they are; that of an item is taken by none."""
    write_model(
        project,
        "def processes(port, second_port):\n"
        "    names = ['deploys', 'a.b', 'a::b [c]']\n"
        "    return {name: Instance(python(name.replace(':', '-').replace(' ', '-'), IDLE)) for name in names}\n",
    )
    result = project.runpytest_subprocess("-v", "processes.py")
    result.assert_outcomes(passed=len(titles("a", "b", "c")))
    assert {"deploys::is_ready[supervisord]", "deploys[supervisord]"} <= outcomes(result, "PASSED")
