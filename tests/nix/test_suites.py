"""Test definitions of the original's driver, as test modules: what is collected, what runs, and how it fails."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from textwrap import dedent

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "webapps-nix"
BOTH = "--nixproc-manager=supervisord,sysvinit"

MODEL = """
    {{ system, stateDir, runtimeDir, ids ? {{ }}, callingUser, greeting ? "hello" }}:
    let
      inherit (import <pytest-nixproc> {{ inherit system stateDir runtimeDir ids; }}) createManagedProcess;
      web = instanceName: rec {{
        inherit greeting;
        user = callingUser;
        port = ids.webPorts.${{instanceName}} or 0;
        requiresUniqueIdsFor = [ "webPorts" ];
        pkg = createManagedProcess {{
          inherit instanceName;
          foregroundProcess = "{python}";
          foregroundProcessArgs = [ "-m" "http.server" "--bind" "127.0.0.1" port ];
          directory = stateDir;
        }};
      }};
    in
    {{ web1 = web "web1"; web2 = web "web2"; }}
"""

WHOLE = """
    { testService, processManagers, profiles }:
    testService {
      name = "webs";
      exprFile = ./processes.nix;
      extraParams.greeting = "moin";
      inherit processManagers profiles;
      systemPackages = [
        (derivation {
          name = "tool";
          system = builtins.currentSystem;
          builder = "/bin/sh";
          args = [ "-c" ''
            /bin/mkdir -p $out/bin
            echo '#!/bin/sh' > $out/bin/tool
            echo 'echo tooled' >> $out/bin/tool
            /bin/chmod +x $out/bin/tool
          '' ];
        })
      ];

      initialTests = { processes, stateDir, runtimeDir, forceDisableUserChange, callingUser, callingGroup }: ''
        start_all()
        seen = []
        instances = "${toString (builtins.attrNames processes)}".split()
        with subtest("state"):
            machine.wait_for_file("${stateDir}")
            machine.succeed("test -d ${runtimeDir}", "test $(id -un) = ${callingUser}")
      '';

      readiness = { instanceName, instance, ... }: ''
        machine.wait_for_open_port(${toString instance.port})
        machine.wait_for_unit("${instanceName}.service")
      '';

      tests = { instanceName, instance, processManager, stateDir, ... }: ''
        seen.append("${instanceName}")
        assert "${processManager}" in ("supervisord", "sysvinit")
        assert "${instance.greeting}" == "moin"
        machine.succeed("su - unprivileged -c 'test -d ${stateDir}'", "su ${instance.user} -c 'test -d ${stateDir}'")
        assert machine.succeed("tool") == "tooled\\n"
        machine.fail("false | true")
      '';

      postTests = { processes, ... }: ''
        assert seen == instances, f"{seen}"
      '';
    }
"""

FIRST = ("deploys", "has_no_conflicts")
TITLES = [
    *(*FIRST, "initialTests", "web1::readiness", "web2::readiness", "web1::tests", "web2::tests", "postTests"),
]


@pytest.fixture
def project(pytester: pytest.Pytester, nix: str) -> pytest.Pytester:  # noqa: ARG001 - sets the environment
    """Return a project with a model of two servers and the pool of their ports."""
    write(pytester, "processes.nix", MODEL.format(python=sys.executable))
    write(pytester, "idresources.nix", "{ webPorts = { min = 27000; max = 27999; }; }")
    return pytester


def write(project: pytest.Pytester, name: str, text: str) -> Path:
    """Write a file of the project."""
    path = project.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def define(project: pytest.Pytester, text: str, *, name: str = "suite.nix") -> None:
    """Write a definition that has some attributes."""
    head = '{ testService, processManagers, profiles }:\ntestService { name = "webs"; exprFile = ./processes.nix;\n'
    write(project, name, f"{head}inherit processManagers profiles; {dedent(text)} }}")


def lines(result: pytest.RunResult, word: str) -> list[str]:
    """Return the items whose outcome in a verbose run was ``word``, without the file."""
    return [line.split("::", 1)[1].split(f" {word}")[0] for line in result.outlines if f" {word}" in line]


def test_every_script_is_an_item(project: pytest.Pytester) -> None:
    """Under each manager the system is deployed once, and its scripts run in the driver's order, with its verbs."""
    write(project, "suite.nix", WHOLE)
    result = project.runpytest_subprocess("-v", "suite.nix", BOTH)
    assert lines(result, "PASSED") == [f"{title}[{name}]" for name in ("supervisord", "sysvinit") for title in TITLES]
    assert not lines(result, "FAILED")


def test_collecting_starts_nothing(project: pytest.Pytester) -> None:
    """``--collect-only`` names the items; scripts that say nothing are none, and whole phases may be missing."""
    define(project, 'tests = { instanceName, ... }: if instanceName == "web2" then "raise SystemExit" else "\\n";')
    result = project.runpytest_subprocess("-q", "--co", "suite.nix")
    assert [line for line in result.outlines if "::" in line] == [
        "suite.nix::deploys[supervisord]",
        "suite.nix::has_no_conflicts[supervisord]",
        "suite.nix::web2::tests[supervisord]",
    ]


def test_what_is_needed_runs_before(project: pytest.Pytester) -> None:
    """An item that is chosen alone comes after the deployment and what the driver does first; each runs once."""
    define(
        project,
        f"""
        initialTests = {{ ... }}: "open('{project.path}/log', 'a').write('initial ')";
        readiness = {{ instanceName, ... }}: "open('{project.path}/log', 'a').write('${{instanceName}} ')";
        tests = {{ ... }}: "open('{project.path}/log', 'a').write('tests ')";
        postTests = {{ ... }}: "open('{project.path}/log', 'a').write('post ')";
        """,
    )
    project.runpytest_subprocess("suite.nix", "-k", "postTests").assert_outcomes(passed=1, deselected=7)
    assert (project.path / "log").read_text() == "initial web1 web2 post "


def test_failing_script(project: pytest.Pytester) -> None:
    """A failure names the file and line of the definition, the script, its line, the statement and what happened.

    A script that cannot be compiled fails alone.
    """
    define(
        project,
        """
        tests = { instanceName, ... }: if instanceName == "web2" then "x = 1\\nif x\\n" else ''
          machine.succeed("true")
          with subtest("greeting"):
              machine.succeed(
                  "echo gone wrong; exit 3"
              )
        '';
        postTests = { ... }: "assert 1 == 2";
        """,
    )
    result = project.runpytest_subprocess("suite.nix")
    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*/suite.nix:4: tests of web1, line 3: command ended with status 3: echo gone wrong; exit 3",
            "    machine.succeed(",
            '        "echo gone wrong; exit 3"',
            "    )",
            "gone wrong",
            "in the subtest: greeting",
            "*tests of web2, line 2: SyntaxError: expected ':'",
            "    if x",
            "*/suite.nix:11: postTests, line 1: AssertionError",
            "    assert 1 == 2",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_failing_readiness(project: pytest.Pytester) -> None:
    """When an instance is not ready, its item fails, and scripts that rely on it are skipped with the reason."""
    define(
        project,
        """
        readiness = { instanceName, instance, ... }: ''
          machine.wait_for_open_port(${if instanceName == "web1" then "1" else toString instance.port}, timeout=0.2)
        '';
        tests = { ... }: "open('never', 'w')";
        """,
    )
    result = project.runpytest_subprocess("-v", "-rs", "suite.nix")
    result.assert_outcomes(passed=3, failed=1, skipped=2)
    result.stdout.fnmatch_lines(["*readiness of web1, line 1: wait for port 1: not within 0.2 s"])
    result.stdout.fnmatch_lines(["SKIPPED*: readiness of web1 has failed"])
    assert not (project.path / "never").exists()


def test_definitions_choose_managers_and_profiles(project: pytest.Pytester) -> None:
    """A definition may leave out managers and profiles that are offered to it; one that leaves out all is skipped."""
    head = '{ testService, processManagers, profiles }:\nlet test = more: testService ({ name = "x"; '
    write(
        project,
        "suite.nix",
        head
        + """exprFile = ./processes.nix; inherit processManagers profiles; } // more); in {
          one = test { processManagers = builtins.filter (name: name != "sysvinit") processManagers; };
          none = test { profiles = builtins.filter (name: name == "privileged") profiles; };
          own = test { processManagers = [ "sysvinit" "disnix" ]; };
          machine = test { nixosConfig = { virtualisation.memorySize = 1024; users.mutableUsers = false; }; };
          module = test { nixosConfig = { pkgs, ... }: { }; };
          sized = test { nixosConfig.virtualisation = { memorySize = 1024; cores = 2; }; };
          empty = test { nixosConfig = { }; processManagers = [ "sysvinit" ]; };
        }""",
    )
    result = project.runpytest_subprocess("-v", "-rs", "suite.nix", BOTH)
    assert sorted(line for line in lines(result, "PASSED") if "deploys" in line) == [
        "empty::deploys[sysvinit]",
        "one::deploys[supervisord]",
        "own::deploys[sysvinit]",
        "sized::deploys[supervisord]",
        "sized::deploys[sysvinit]",
    ]
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*: it is for other managers or profiles than those chosen",
            "SKIPPED*: it configures a NixOS machine of its own (nixosConfig), and here is none",
        ]
    )
    selected = project.runpytest_subprocess("-q", "--co", "suite.nix::own", "--nixproc-manager=sysvinit")
    ids = [line for line in selected.outlines if "::" in line]
    assert ids == [f"suite.nix::own::{title}[sysvinit]" for title in FIRST]


def test_file_that_imports_the_driver(project: pytest.Pytester) -> None:
    """A file that imports the original's driver by itself gets ours in its place; what else it imports it gets."""
    write(project, "nixproc/test-driver/universal.nix", 'throw "this driver needs virtual machines"')
    write(
        project,
        "tests/web/default.nix",
        """
        { testService, processManagers, profiles }:
        testService { name = "web"; exprFile = ../../processes.nix; inherit processManagers profiles;
          postTests = { ... }: "machine.succeed('true')"; }
        """,
    )
    write(
        project,
        "tests/default.nix",
        """
        { nixpkgs ? <nixpkgs>, system ? builtins.currentSystem
        , processManagers ? [ "systemd" ], profiles ? [ "privileged" ]
        }:
        let testService = import ../nixproc/test-driver/universal.nix { inherit nixpkgs system; };
        in { web = import ./web { inherit processManagers profiles testService; }; }
        """,
    )
    result = project.runpytest_subprocess("-v", "tests/default.nix")
    titles = ["deploys", "has_no_conflicts", "postTests"]
    assert lines(result, "PASSED") == [f"web::{title}[supervisord]" for title in titles]


def test_scripts_get_the_ids_of_the_deployment(project: pytest.Pytester) -> None:
    """A script names the port that the system has in the end, here that in ids.nix, less one that is in use."""
    write(project, "ids.nix", "{ ids.webPorts = { web1 = 27500; web2 = 27600; }; lastAssignments.webPorts = 27700; }")
    define(
        project,
        """
        tests = { instanceName, instance, ... }: ''
          open("${instanceName}", "w").write("${toString instance.port}")
        '';
        """,
    )
    import socket

    with socket.create_server(("127.0.0.1", 27600)):
        project.runpytest_subprocess("suite.nix").assert_outcomes(passed=4)
    assert [(project.path / name).read_text() for name in ("web1", "web2")] == ["27500", "27701"]


def test_workers(project: pytest.Pytester) -> None:
    """With pytest-xdist, a definition stays on one worker, which deploys it once."""
    define(project, f"initialTests = {{ ... }}: \"open('{project.path}/log', 'a').write('x')\"; tests = _: \"pass\";")
    # Also where its file is named like tests.
    shutil.copy(project.path / "suite.nix", project.path / "test_suite.nix")
    result = project.runpytest_subprocess("-n2", "suite.nix", "test_suite.nix", "-p", "xdist")
    result.assert_outcomes(passed=10)
    assert (project.path / "log").read_text() == "xx"


BROKEN = {
    "unknown-attribute": (
        'testz = { ... }: "";',
        "*unknown-attribute.nix:2:1: *called with unexpected argument 'testz'*",
    ),
    "model-twice": ("exprFile = ./nowhere.nix;", "*model-twice.nix:*attribute 'exprFile' already defined*"),
    "no-script": ("tests = { ... }: 5;", "*no-script.nix:3: tests yields 5, which is no script"),
    "failing-script": ('tests = { ... }: throw "it is none";', "*failing-script.nix:*it is none*"),
    "unknown-parameter": ("tests = { instance, nothing }: nothing;", "*unknown-parameter.nix:*'nothing'*"),
}
NO_DEFINITIONS = {
    "no-definition": ("{ testService }: { a = 5; }", "*no-definition.nix: 'a' in it is no test definition"),
    "number": ("{ testService }: 5", "*number.nix: it is no test definition"),
    "unknown-request": (
        "{ testService, nix-processmgmt }: 5",
        "*unknown-request.nix: it asks for 'nix-processmgmt', which is not known",
    ),
}


def test_what_is_wrong_in_a_file(project: pytest.Pytester) -> None:
    """What is wrong in a file that speaks of definitions is one error at its collection, with its place."""
    for name, (text, _) in BROKEN.items():
        define(project, text, name=f"{name}.nix")
    for name, (text, _) in NO_DEFINITIONS.items():
        write(project, f"{name}.nix", text)
    result = project.runpytest_subprocess(*(f"{name}.nix" for name in (*BROKEN, *NO_DEFINITIONS)))
    result.assert_outcomes(errors=len(BROKEN) + len(NO_DEFINITIONS))
    result.stdout.fnmatch_lines_random([expected for _, expected in (*BROKEN.values(), *NO_DEFINITIONS.values())])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_parameters_of_the_user(project: pytest.Pytester) -> None:
    """A parameter goes to the file, to the model, or to both; one that neither accepts is an error."""
    write(
        project,
        "suite.nix",
        """
        { testService, processManagers, profiles, some-path }:
        testService { name = "x"; exprFile = ./processes.nix; inherit processManagers profiles;
          tests = { instance, ... }: "assert '${instance.greeting} ${some-path}' == 'ahoy /there'"; }
        """,
    )
    given = ["--nixproc-param=some-path=/there", "--nixproc-param=greeting=ahoy"]
    project.runpytest_subprocess("suite.nix", *given).assert_outcomes(passed=4)
    result = project.runpytest_subprocess("--co", "suite.nix", *given, "--nixproc-param=other=1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*: it has no parameter 'other'"])


def test_example(project: pytest.Pytester) -> None:
    """The example's definition runs as its README says."""
    if not all(map(shutil.which, ("/usr/sbin/nginx", "curl", "gcc"))):
        pytest.skip("there are no nginx, curl and gcc: apt install nginx-light curl gcc libc6-dev")
    shutil.copytree(EXAMPLE, project.path / "example")
    result = project.runpytest_subprocess("-v", "example/suite.nix", "--nixproc-manager=sysvinit")
    scripts = ["gateway::readiness", "webapp1::readiness", "webapp2::readiness", "gateway::tests", "postTests"]
    assert lines(result, "PASSED") == [f"{title}[sysvinit]" for title in (*FIRST, *scripts)]


def test_only_files_that_were_given(project: pytest.Pytester) -> None:
    """Definitions are not run by surprise: a file has to be given, or matched by the option; comments do not count."""
    define(project, "")
    assert project.runpytest_subprocess("--co").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    matched = project.runpytest_subprocess("-q", "--co", "--nixproc-model-files=suite.nix")
    matched.stdout.fnmatch_lines(
        ["suite.nix::deploys[[]supervisord[]]", "suite.nix::has_no_conflicts[[]supervisord[]]"]
    )
    write(project, "other.nix", "# testService\nimport ./processes.nix /* testService */\n")
    result = project.runpytest_subprocess("-q", "--co", "other.nix")
    result.stdout.fnmatch_lines(["other.nix::has_no_conflicts[[]supervisord[]]"])
