"""Constructors that are validated with instances side by side, from the command line and by tests."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from textwrap import dedent

import pytest

BOTH = "--nixproc-manager=supervisord,sysvinit"
SERVERS = '''
import sys

from pytest_nixproc import Instance, create_managed_process, ready

PROGRAM = """
import glob, os, signal, socket, sys
port, path, fault = int(sys.argv[1]), sys.argv[2], sys.argv[3]
listener = socket.create_server(("127.0.0.1", int(os.environ["FIXED"]) if fault == "fixed port" else port))

def end(*_):
    for name in glob.glob(os.path.dirname(path) + "/*.up") if fault == "cleans up" else [path]:
        os.unlink(name)
    sys.exit()

signal.signal(signal.SIGTERM, end)
open(path, "w").close()
while True:
    listener.accept()[0].close()
"""


def server(state, *, port, instance_suffix="", fault="none", fixed=0):
    name = f"server{instance_suffix}"
    path = f"{state.tmp_dir}/{name}.up"
    pkg = create_managed_process(
        name=name,
        foreground_process=sys.executable,
        args=["-I", "-S", "-c", PROGRAM, port, path, fault],
        environment={"FIXED": fixed},
    )
    return Instance(pkg, port=port, ready=ready.tcp(port) & ready.file(path))


def client(state, *, instance_name, backend):
    args = ["-I", "-S", "-c", "import signal; signal.pause()", backend.port]
    return create_managed_process(
        name=instance_name, foreground_process=sys.executable, args=args, dependencies=[backend]
    )


def unnamed(state, *, port):
    return server(state, port=port)


number = 3
'''

IN_NIX = """
    { stateDir, runtimeDir, tmpDir, libDir }:
    let
      inherit (import <pytest-nixproc> { inherit stateDir runtimeDir tmpDir; }) createManagedProcess;
      server = name: port: createManagedProcess {
        inherit name;
        foregroundProcess = "PYTHON";
        args = [ "-I" "-m" "http.server" "--bind" "127.0.0.1" "--directory" libDir port ];
      };
    in
    {
      web.server = { port, instanceSuffix }: server "w${instanceSuffix}" port;
      unnamed = { port, instanceSuffix }: server "w" port;
    }
"""


@pytest.fixture
def servers(pytester: pytest.Pytester, state_root: Path) -> pytest.Pytester:
    """Return a project with constructors, in a directory whose name is awkward."""
    directory = pytester.mkdir("it's a library")
    (directory / "servers.py").write_text(SERVERS, encoding="utf-8")
    pytester.makeini(
        f"[pytest]\nnixproc_state_root = {state_root}\naddopts = --strict-markers -p no:cacheprovider\n"
        "nixproc_start_timeout = 10\nfilterwarnings =\n    error\n"
    )
    return pytester


def option(name: str) -> str:
    """Return the option that names a constructor."""
    return f"--nixproc-constructor=it's a library/servers.py:{name}"


def failed(result: pytest.RunResult) -> set[str]:
    """Return the items that have failed in a verbose run, without the file and the point."""
    return set(re.findall(r"::[\w.]+::(\S+)\[\w+\] FAILED", "\n".join(result.outlines)))


def collected(servers: pytest.Pytester, *arguments: str) -> list[str]:
    """Return the ids of the items that pytest collects with the constructor ``server``."""
    result = servers.runpytest_subprocess("--collect-only", "-q", option("server"), *arguments)
    return [line for line in result.outlines if "::" in line]


def test_constructor_from_the_command_line(servers: pytest.Pytester, state_root: Path) -> None:
    """Without a test and without a file given, the constructor's instances are a model; nothing else is collected."""
    servers.makepyfile("def test_other(): ...\n")
    result = servers.runpytest_subprocess("-v", option("server"), BOTH)
    result.assert_outcomes(passed=34)
    result.stdout.fnmatch_lines(
        [
            "it's a library/servers.py::server::passes_parameters_on?supervisord? PASSED*",
            "it's a library/servers.py::server::server2::restarts_alone?supervisord? PASSED*",
        ]
    )
    assert not list(state_root.glob("*"))


def test_constructor_beside_tests(servers: pytest.Pytester) -> None:
    """What is given to pytest is run too; an id chooses among the items."""
    path = servers.makepyfile("def test_other(): ...\n")
    assert len(collected(servers, path.name)) == 18
    chosen = "it's a library/servers.py::server::server1"
    assert len(collected(servers, chosen)) == 6


def test_values_from_the_command_line(servers: pytest.Pytester) -> None:
    """``--nixproc-vary`` says how many instances there are, and ``--nixproc-param`` what they are given alike."""
    vary = '--nixproc-vary=instance_suffix=["-a", ".b", "_c"]'
    ids = collected(servers, vary, "--nixproc-param=fault=other")
    assert len(ids) == 23
    listening = [name.split("::")[-2] for name in ids if "::listens[" in name]
    assert listening == ["server-a", "server.b", "server_c"]


@pytest.mark.parametrize(
    ("manager", "fault", "items", "message"),
    [
        ("supervisord", "fixed port", {"deploys"}, "*Address already in use*"),
        (
            "sysvinit",
            "cleans up",
            {"server1::restarts_alone", "server2::restarts_alone"},
            "NP306 error: server? is not ready while *",
        ),
    ],
)
def test_faults_that_only_a_deployment_shows(
    servers: pytest.Pytester, state_root: Path, manager: str, fault: str, items: set[str], message: str
) -> None:
    """What a program does by itself is found by instances that run together, and by each that is stopped alone."""
    arguments = [f"--nixproc-param=fault={fault}", "--nixproc-start-timeout=3", f"--nixproc-manager={manager}"]
    servers.makeconftest(
        "import socket\n"
        "with socket.create_server(('127.0.0.1', 0)) as probe:\n"
        "    PORT = probe.getsockname()[1]\n"
        "def pytest_configure(config):\n"
        "    config.option.nixproc_param.append(f'fixed={PORT}')\n"
    )
    result = servers.runpytest_subprocess("-v", option("server"), *arguments)
    assert failed(result) == items
    result.stdout.fnmatch_lines([message])
    assert not list(state_root.glob("*"))


def test_constructor_that_is_found_wrong_without_a_deployment(servers: pytest.Pytester) -> None:
    """What does not follow from parameters fails an item of its own, and the model of its instances is refused."""
    result = servers.runpytest_subprocess("-v", option("unnamed"), "--nixproc-ignore=NP403")
    assert failed(result) == {"passes_parameters_on", "deploys"}
    result.stdout.fnmatch_lines(["NP401 error: every instance of unnamed has the name server", "NP105 error: *"])
    result.stdout.no_fnmatch_line("*NP403*")


def test_nonsense_is_one_clear_error(servers: pytest.Pytester) -> None:
    """What makes no sense ends the run before anything starts, and shows no line of ours."""
    result = servers.runpytest_subprocess(*map(option, ("nothing", "number", "client", "web.server")))
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=4)
    output = result.stdout.str().replace("\n", " ")
    for message in (
        "*defines no constructor 'nothing'*",
        "*defines no constructor 'number'*",
        "*nothing is known about the values of 'backend'*--nixproc-param=backend=VALUE*",
        "*defines no constructor 'web.server'*",
    ):
        pytest.LineMatcher([output]).fnmatch_lines([message])
    assert "pytest_nixproc/" not in output


def test_file_that_is_missing(servers: pytest.Pytester) -> None:
    """A file that is not there is a usage error, as in any argument of pytest."""
    result = servers.runpytest_subprocess("--nixproc-constructor=nowhere.py:server")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*not found*nowhere.py*"])


def test_validation_in_a_test(servers: pytest.Pytester, state_root: Path) -> None:
    """The fixture deploys instances of a function or of ``FILE:NAME``, as a marker varies them, with what is shared."""
    servers.makepyfile(
        """
        import runpy
        import pytest
        from pytest_nixproc.errors import ConflictError

        MODULE = runpy.run_path("it's a library/servers.py")

        @pytest.mark.nixproc_vary(instance_suffix=["a", "b", "c"])
        def test_marker(nixproc_constructor):
            with nixproc_constructor(MODULE["server"]) as system:
                assert list(system) == ["servera", "serverb", "serverc"]
                assert len({instance.port for instance in system.values()}) == 3
            assert not system.is_deployed
            started = [event.instance for event in system.timeline if event.happening == "start"]
            assert sorted(started) == sorted(["servera", "serverb", "serverc"] * 2)

        def test_file(nixproc_constructor):
            with nixproc_constructor("it's a library/servers.py:server", vary={"instance_suffix": [1, 2]}) as system:
                assert list(system) == ["server1", "server2"]

        def test_shared(nixproc_constructor):
            def shared(state, free_port):
                return {"backend": MODULE["server"](state, port=free_port("backend"), instance_suffix="X")}

            with nixproc_constructor(MODULE["client"], shared=shared) as system:
                assert list(system) == ["serverX", "client-1", "client-2"]

        def test_wrong(nixproc_constructor):
            with pytest.raises(ConflictError, match="every instance of unnamed has the name server"):
                with nixproc_constructor(MODULE["unnamed"]):
                    raise AssertionError
        """
    )
    servers.runpytest_subprocess("--nixproc-manager=sysvinit").assert_outcomes(passed=4)
    assert not list(state_root.glob("*"))


@pytest.mark.usefixtures("nix")
def test_constructor_in_nix(servers: pytest.Pytester, state_root: Path) -> None:
    """Instances of a constructor in a set of sets are compared, and really deployed side by side; a fault is told."""
    path = servers.path / "it's a library" / "servers.nix"
    path.write_text(dedent(IN_NIX).replace("PYTHON", sys.executable), encoding="utf-8")
    option = f"--nixproc-constructor={path}"
    names = (f"{option}:web.server", f"{option}:unnamed")
    result = servers.runpytest_subprocess("-v", *names, "--nixproc-manager=sysvinit")
    assert len([line for line in result.outlines if "::web.server::" in line and " PASSED" in line]) == 17
    result.stdout.fnmatch_lines(["it's a library/servers.nix::web.server::w2::restarts_alone?sysvinit? PASSED*"])
    assert failed(result) == {"passes_parameters_on", "deploys"}
    result.stdout.fnmatch_lines(["NP401 error: *", "*pkg.name = 'w' (it's a library/servers.nix:*)"])
    assert not list(state_root.glob("*"))


def test_plan(servers: pytest.Pytester, state_root: Path) -> None:
    """``--nixproc-plan`` compares, and starts nothing."""
    result = servers.runpytest_subprocess("--nixproc-plan", option("server"))
    result.assert_outcomes(passed=1, skipped=16)
    result.stdout.fnmatch_lines(["  1. start server1  *", "  2. start server2  *"])
    assert not state_root.exists()


def test_constructor_under_xdist(servers: pytest.Pytester, state_root: Path) -> None:
    """The workers collect the same items, and one of them has all of a constructor."""
    servers.runpytest_subprocess("-n", "2", option("server"), BOTH).assert_outcomes(passed=34)
    assert not list(state_root.glob("*"))


@pytest.mark.parametrize(("name", "program"), [("nginx", "nginx"), ("redis", "redis-server")])
def test_constructors_of_real_servers(servers: pytest.Pytester, state_root: Path, name: str, program: str) -> None:
    """Nothing is found in constructors that are right, and instances of real servers coexist."""
    if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip(f"there is no {program}")
    example = Path(__file__).parents[2] / "examples" / "databases" / "processes.py"
    shutil.copy(example, servers.path / "real.py")
    result = servers.runpytest_subprocess(f"--nixproc-constructor=real.py:{name}", "--nixproc-manager=sysvinit")
    result.assert_outcomes(passed=17)
    assert "NP4" not in result.stdout.str()
    assert not list(state_root.glob("*"))
