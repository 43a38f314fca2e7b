"""What becomes of the findings of the checks: choosing rules, reports for programs, and checking without pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MODEL = """
from pytest_nixproc import Instance, create_managed_process

def web(name, **environment):
    return create_managed_process(name=name, foreground_process="/bin/sleep", args=[60], environment=environment)

def processes(port: int = 4999):
    return {
        "a": Instance(web("a", NOTE="/var/x"), port=port),
        "b": Instance(web("b"), port=port),
    }
"""
YAML = "processes:\n  c: {port: 4999, pkg: {name: c, process: /bin/c}}\n  d: {pkg: {name: d, process: /bin/d}}\n"
PLAN = ("--nixproc-model=model.py", "--nixproc-plan")


@pytest.fixture(autouse=True)
def files(pytester: pytest.Pytester) -> None:
    """Make two models and a test."""
    pytester.makepyfile(model=MODEL, test_it="def test_it(nixproc_system): pass")
    (pytester.path / "model.yaml").write_text(YAML)


def codes_in(path: Path) -> list[str]:
    """Return the codes of the findings in a report."""
    return [finding["code"] for finding in json.loads(path.read_text())["findings"]]


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ([], ["NP108", "NP101"]),
        (["--nixproc-ignore=NP108"], ["NP101"]),
        (["--nixproc-select=NP10", "--nixproc-ignore=NP101"], ["NP108"]),
    ],
)
def test_rules_are_chosen(pytester: pytest.Pytester, options: list[str], codes: list[str]) -> None:
    """Rules are chosen by option, and the report of a plan holds what the chosen ones find."""
    pytester.runpytest(*PLAN, "--nixproc-findings=json:found.json", *options)
    assert sorted(codes_in(pytester.path / "found.json")) == sorted(codes)


def test_refused_deployment_is_reported(pytester: pytest.Pytester) -> None:
    """The findings that refuse a deployment are in the report, with their lines."""
    result = pytester.runpytest("--nixproc-model=model.py", "--nixproc-findings=sarif:found.sarif")
    result.assert_outcomes(errors=1)
    (run,) = json.loads((pytester.path / "found.sarif").read_text())["runs"]
    (found,) = run["results"]
    place = found["locations"][0]["physicalLocation"]
    assert (found["ruleId"], place["region"], place["artifactLocation"]["uri"]) == (
        "NP101",
        {"startLine": 8},
        "model.py",
    )


def test_workers_report_to_their_controller(pytester: pytest.Pytester) -> None:
    """One report holds what the workers of pytest-xdist have found, each finding once."""
    pytester.makepyfile(test_more="def test_more(nixproc_system): pass")
    pytester.runpytest_subprocess("-n2", "--nixproc-model=model.py", "--nixproc-findings=json:found.json")
    assert codes_in(pytester.path / "found.json") == ["NP101"]


SHARE = ("-n2", "--nixproc-scope=session", "--nixproc-share", "--nixproc-findings=json:found.json")


def test_shared_systems_are_reported(pytester: pytest.Pytester) -> None:
    """What is found in a system that workers share is in the report, and at the end of the terminal's output."""
    (pytester.path / "noted.yaml").write_text(
        "processes:\n  c: {pkg: {name: c, foregroundProcess: /bin/sleep, args: [60], environment: {NOTE: /var/x}}}\n"
    )
    result = pytester.runpytest_subprocess(*SHARE, "--nixproc-model=noted.yaml")
    result.assert_outcomes(passed=1)
    assert codes_in(pytester.path / "found.json") == ["NP108"]
    result.stdout.fnmatch_lines(["*nixproc: findings*", "NP108 warning: c mentions a path outside the state"])


def test_refused_shared_deployment_is_reported(pytester: pytest.Pytester) -> None:
    """The findings that refuse a system that workers share are in the report."""
    pytester.runpytest_subprocess(*SHARE, "--nixproc-model=model.py")
    assert codes_in(pytester.path / "found.json") == ["NP101"]


def test_report_without_findings(pytester: pytest.Pytester) -> None:
    """A session in which nothing is found says so in the file that was asked for."""
    pytester.makepyfile(test_it="def test_it(): pass")
    pytester.runpytest("--nixproc-findings=json:found.json")
    assert codes_in(pytester.path / "found.json") == []


def test_report_that_cannot_be_written(pytester: pytest.Pytester) -> None:
    """A report that cannot be written at the end of a session is one error, after everything else was told."""
    pytester.makepyfile(test_it="import os\ndef test_it(): os.rmdir('found')")
    pytester.mkdir("found")
    result = pytester.runpytest_subprocess("--nixproc-findings=json:found/found.json")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    (line, _) = result.stderr.lines
    assert line.startswith("cannot write the report ")


def test_report_on_the_terminal(pytester: pytest.Pytester) -> None:
    """Without a file the report is printed."""
    result = pytester.runpytest(*PLAN, "--nixproc-findings=json")
    result.stdout.fnmatch_lines(["*nixproc: findings as json*", '*"code": "NP101",'])


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--nixproc-findings=json:none/found", "*--nixproc-findings: there is no directory *none*"),
        ("--nixproc-select=NP9", "*unknown check 'NP9'*"),
        ("--nixproc-ignore=np101", "*unknown check 'np101'*"),
    ],
)
def test_nonsense_is_refused(pytester: pytest.Pytester, option: str, line: str) -> None:
    """A format, a directory or a code that does not exist is a usage error."""
    result = pytester.runpytest(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])


def check(pytester: pytest.Pytester, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that checks models."""
    command = [sys.executable, "-m", "pytest_nixproc", "check", *arguments]
    return subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)


def test_command_checks_a_model(pytester: pytest.Pytester) -> None:
    """The command finds what a deployment would, and says where."""
    done = check(pytester, "model.py")
    assert done.returncode == 1
    assert done.stdout.splitlines()[:3] == [
        "NP101 error: a and b declare the same TCP port 4999",
        "    processes.a.port = 4999 (model.py:8)",
        "    processes.b.port = 4999 (model.py:9)",
    ]
    assert done.stdout.splitlines()[-1] == "1 error and 1 warning"


def test_mistyped_overrides_are_told_before_anything_starts(pytester: pytest.Pytester) -> None:
    """Mistyped parameters and managers are told with what was meant, by the command as by a plan."""
    overrides = "{supervisord: {autorestrat: 'true'}, sysvinitt: {}}"
    (pytester.path / "typing.yaml").write_text(
        f"processes:\n  d: {{pkg: {{name: d, process: /bin/d, overrides: {overrides}}}}}\n"
    )
    done = check(pytester, "typing.yaml")
    planned = pytester.runpytest_subprocess("--nixproc-plan", "typing.yaml").stdout.str()
    for said in (done.stdout, planned):
        assert "NP116 error: supervisord cannot deploy 'd': its override 'autorestrat' is no parameter" in said
        assert "fix: did you mean 'autorestart'?" in said
        assert "NP121 error: d has overrides for 'sysvinitt', and no manager has that name" in said
        assert "fix: did you mean 'sysvinit'?" in said
    assert done.returncode == 1


def test_command_checks_models_side_by_side(pytester: pytest.Pytester) -> None:
    """A port that two models declare is found, once for all managers; and what only warns is no failure."""
    done = check(pytester, "model.yaml", "model.py", "--manager=all", "--ignore=NP101", "--select=NP1")
    assert done.stdout.count("NP120 error: b declares tcp 4999, and so does c of model.yaml") == 1
    assert check(pytester, "model.py", "--ignore=NP101").returncode == 0


def test_command_writes_reports(pytester: pytest.Pytester) -> None:
    """The command writes the same reports; a value of a YAML file has the line where it stands."""
    done = check(pytester, "model.yaml", "model.py", "--format=json", "--output=found.json", "--param=port=5001")
    assert (done.returncode, done.stdout) == (1, "")
    assert sorted(codes_in(pytester.path / "found.json")) == ["NP101", "NP108"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.py"], "no model file none.py"),
        (["model.py", "--manager=none"], "unknown process manager 'none'"),
        (["model.py", "--ignore=none"], "unknown check 'none'"),
        (["model.py", "--param=1"], "1: write NAME=VALUE"),
        (["model.py", "--output=none/found"], "cannot write the report none/found: No such file or directory"),
    ],
)
def test_command_refuses_nonsense(pytester: pytest.Pytester, arguments: list[str], problem: str) -> None:
    """Nonsense gets one error that names it, and a status that no findings have."""
    done = check(pytester, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(problem)
    assert "Traceback" not in done.stderr


@contextmanager
def deployed(pytester: pytest.Pytester) -> Iterator[None]:
    """Have a model deployed by another session while the block runs."""
    pytester.makepyfile(
        test_long="""
        import sys
        def test_long(nixproc_deploy):
            with nixproc_deploy("model.yaml"):
                print("up", flush=True)
                sys.stdin.readline()
        """
    )
    (pytester.path / "model.yaml").write_text(
        "processes:\n"
        "  c: {pkg: {name: c, foreground_process: /bin/sleep, args: [60]}, address: 127.0.0.1, udpPort: 4998}\n"
        "  e: {pkg: {name: e, foreground_process: /bin/sleep, args: [60]}, data_dir: /nowhere/x}\n"
    )
    command = [sys.executable, "-m", "pytest", "-s", "-q", "--nixproc-ignore=NP202", "test_long.py"]
    session = subprocess.Popen(
        command, cwd=pytester.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert session.stdin is not None
    assert session.stdout is not None
    try:
        seen = []
        for line in session.stdout:
            seen.append(line)
            if line.endswith("up\n"):
                break
        else:
            pytest.fail("".join(seen))
        yield
    finally:
        try:
            session.communicate("\n", timeout=60)
        except subprocess.TimeoutExpired:
            session.kill()
            session.communicate()
            raise


def test_what_is_deployed_already(pytester: pytest.Pytester) -> None:
    """What another session has deployed is known, when a model is checked."""
    (pytester.path / "second.yaml").write_text(
        "processes:\n  f: {pkg: {name: f, process: /bin/f}, dataDir: /nowhere/x, udpPort: 4998}\n"
    )
    with deployed(pytester):
        done = check(pytester, "second.yaml")
    assert "NP120 error: f claims /nowhere/x, and so does e of " in done.stdout
    assert "NP120 error: f declares udp 4998, and c of " in done.stdout
    assert check(pytester, "second.yaml").stdout == "no findings\n"
