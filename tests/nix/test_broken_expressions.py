"""Expressions that cannot be deployed: each is one error that says in one line what is wrong, and where."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from glob import glob
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_nixproc.errors import ModelError, NixprocError, SourceError

if TYPE_CHECKING:
    from tests.nix.conftest import Bench

WEB = 'web.pkg = createManagedProcess { name = "web"; process = "/bin/web"; '

BROKEN = {
    "syntax": ("{ web = ; }", r"processes\.nix:2:9: syntax error, unexpected ';'"),
    "undefined": ("{ web.pkg = nowhere; }", r"processes\.nix:2:13: undefined variable 'nowhere'"),
    "recursion": ("rec { web = web; }", r"processes\.nix:2:13: infinite recursion encountered"),
    "endless": (
        "let f = x: 1 + f x; in { web.port = f 1; web.pkg = null; }",
        r"processes\.nix: evaluation overflowed its stack",
    ),
    "throw": ('{ web.port = throw "no port\\nat all"; web.pkg = null; }', r"processes\.nix:2:\d+: no port at all"),
    "assertion": (
        "{ web = assert 1 == 2; { }; }",
        r"processes\.nix:2:9: (assertion '\(1 == 2\)' failed|an integer .* is not equal to)",
    ),
    "missing attribute": ("let x = { }; in { web.pkg = x.y; }", r"processes\.nix:2:29: attribute 'y' missing"),
    "missing file": (
        "{ web = import ./ghost.nix; }",
        r"processes\.nix:2:\d+: (getting status of|path) '.*/ghost\.nix'",
    ),
    "wrong addition": ('{ web.port = 1 + "a"; web.pkg = null; }', r"processes\.nix:2:\d+: cannot add a string to an"),
    "unknown argument": (
        "let f = { a }: a; in { web.pkg = f { b = 1; }; }",
        r"processes\.nix:2:\d+: .*called without required argument 'a'",
    ),
    "number": ("5", r"processes\.nix: returns int$"),
    "curried": ("a: b: { }", r"processes\.nix: returns a function: it has to be called with all of its arg"),
    "needed argument": ("{ colour }: { }", r"processes\.nix: it asks for 'colour', which is not known"),
    "instance is text": ('{ web = "web"; }', r"processes\.nix:2:3: processes\.web: is a string, which is no instance"),
    "no pkg": ("{ web.port = 5000; }", r"processes\.nix:2:3: processes\.web: has no pkg"),
    "pkg is text": (
        '{ web.pkg = "/bin/web"; }',
        r"processes\.nix:2:3: processes\.web\.pkg: is a string, which is no managed process",
    ),
    "pkg is a derivation": (
        '{ web.pkg = derivation { name = "x"; system = "x"; builder = "x"; }; }',
        r"processes\.nix:2:3: processes\.web\.pkg: is a derivation, which is no managed process",
    ),
    "arguments as text": (
        '{ web.pkg = createManagedProcess "web"; }',
        r"processes\.nix:2:3: processes\.web\.pkg: is made of a string",
    ),
    "unknown parameter": (
        f"{{ {WEB} process2 = 1; }}; }}",
        r"processes\.nix:2:\d+: processes\.web\.process2: is no parameter of a managed process \(did you mean 'process",
    ),
    "wrong type": (
        f"{{ {WEB}\n  nice = [ 5 ]; }}; }}",
        r"processes\.nix:3:3: processes\.web\.nice: is \[5\], which is no nice level",
    ),
    "function as a value": (
        f"{{ {WEB}\n  user = x: x; }}; }}",
        r"processes\.nix:3:3: processes\.web\.user: is a function, which is not a string",
    ),
    "relative program": (
        '{ web.pkg = createManagedProcess {\n  name = "web";\n  process = "web"; }; }',
        r"processes\.nix:4:3: processes\.web\.process: is 'web', which is not an absolute path",
    ),
    "foreign dependency": (
        f'{{ {WEB} dependencies = [ (createManagedProcess {{ name = "db"; }}) ]; }}; }}',
        r"processes\.nix:2:\d+: processes\.web\.dependencies\[0\]: is 'db', which the model does not hold",
    ),
    "port is text": (
        f'{{ {WEB} }}; web.port = "http"; }}',
        r"processes\.nix:2:\d+: processes\.web\.port: is 'http', which is no TCP port",
    ),
}


def line_of(error: NixprocError) -> str:
    """Return the line that says what is wrong: the first fault of a model, or the brief of any other error."""
    return str(error.faults[0]) if isinstance(error, ModelError) else error.brief


@pytest.mark.parametrize("name", BROKEN)
def test_one_line(bench: Bench, name: str) -> None:
    """What is wrong is said in one line, with the place in the user's own file."""
    text, expected = BROKEN[name]
    with pytest.raises(NixprocError) as caught:
        bench.read(text)
    line = line_of(caught.value)
    assert re.search(expected, line), line
    assert "\n" not in line
    assert "evaluate.nix" not in str(caught.value)
    assert "pytest_nixproc" not in str(caught.value)


def test_failing_build(bench: Bench) -> None:
    """A build that fails is an error with the name of the derivation, the status, and the end of its log."""
    model = bench.read("""
        let broken = derivation {
          name = "broken";
          system = builtins.currentSystem;
          builder = "/bin/sh";
          args = [ "-c" "echo the compiler is unhappy; exit 3" ];
        };
        in { web.pkg = createManagedProcess { name = "web"; process = "${broken}/bin/web"; }; }
    """)
    with pytest.raises(SourceError, match=r"processes\.nix: building broken failed with exit code 3") as caught:
        model.provide(str(bench.directory))
    assert caught.value.brief.endswith("exit code 3")
    assert caught.value.details == "the compiler is unhappy"


def refuse_to_wait(bench: Bench) -> None:
    """Give Nix one second."""
    bench.context = replace(bench.context, tools=replace(bench.context.tools, seconds=1.0))


def test_slow_evaluation(bench: Bench) -> None:
    """What takes too long is ended, and the error says how long it was given, and by which option."""
    refuse_to_wait(bench)
    with pytest.raises(SourceError, match=r"processes\.nix: evaluation took longer than 1 s") as caught:
        bench.read(
            "{ web.port = builtins.foldl' (a: b: a + b) 0 (builtins.genList (n: n) 1000000000); web.pkg = null; }"
        )
    assert "--nixproc-build-timeout" in caught.value.remedy


def test_slow_build(bench: Bench) -> None:
    """So is a build."""
    text = """
        let sleeper = derivation {
          name = "sleeper"; system = builtins.currentSystem; builder = "/bin/sleep"; args = [ "61" ];
        };
        in { web.pkg = createManagedProcess { name = "web"; process = sleeper; }; }
    """
    bench.read(text)
    # The evaluation, which may take longer than the build is given, is remembered.
    refuse_to_wait(bench)
    bench.commands.clear()
    model = bench.read(text)
    assert bench.commands == []
    with pytest.raises(SourceError, match=r"processes\.nix: building took longer than 1 s") as caught:
        model.provide(str(bench.directory))
    assert "--nixproc-build-timeout" in caught.value.remedy
    assert not glob(f"{tempfile.gettempdir()}/nix-build-sleeper*")
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["/bin/sleep", "61"]
    ]


def test_no_nix(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Nix, the error says how to get it."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="models in Nix need Nix, and there is no nix-instantiate in PATH") as caught:
        bench.read("{ }")
    assert "nix-bin" in caught.value.remedy


def test_unknown_parameter_of_the_user(bench: Bench) -> None:
    """A parameter that the expression does not accept is refused, as in other kinds of models."""
    with pytest.raises(SourceError, match=r"processes\.nix: it has no parameter 'color'") as caught:
        bench.read("{ colour ? 1, stateDir }: { }", params={"color": 1})
    assert caught.value.remedy == "it accepts colour, stateDir"


@pytest.mark.parametrize("name", ["state", "free_port"])
def test_parameter_of_the_user_called_like_one_of_python(bench: Bench, name: str) -> None:
    """So is one that is called like something that only models in Python are told."""
    with pytest.raises(SourceError, match=rf"processes\.nix: it has no parameter '{name}'"):
        bench.read("{ stateDir }: { }", params={name: "x"})


def test_error_in_an_imported_file(bench: Bench) -> None:
    """The place is where the error is, in whichever of the user's files."""
    bench.write("{ port }:\n  port.x", "web/default.nix")
    with pytest.raises(SourceError, match=r"web/default\.nix:2:3: .*(is an integer while|but found an integer)"):
        bench.read("{ web = (import ./web) { port = 1; }; }")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Return the address of a web server on this machine, and the paths that it has been asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"8080")

        def log_message(self, *_: object) -> None:
            pass

    # The machine's own proxy, if it has one, could not reach it.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


FETCHES = {"a file": "builtins.fetchurl", "an archive": "fetchTarball"}


@pytest.mark.parametrize("what", FETCHES)
def test_no_network(bench: Bench, server: tuple[str, list[str]], what: str) -> None:
    """Nix fetches nothing, although it could; the error names the option that allows it."""
    address, asked = server
    with pytest.raises(SourceError, match=r"processes\.nix") as caught:
        bench.read(f'{{ web.port = {FETCHES[what]} "{address}/file.tar.gz"; web.pkg = null; }}')
    assert asked == []
    assert "unable to download" in caught.value.brief
    assert caught.value.remedy == "allow it: --nixproc-download"


def test_network_that_is_allowed(bench: Bench, server: tuple[str, list[str]]) -> None:
    """Where it may download, Nix reads what a server has."""
    address, asked = server
    fetched = f'builtins.fromJSON (builtins.readFile (builtins.fetchurl "{address}/port"))'
    model = bench.read(
        f'{{ web.port = {fetched}; web.pkg = createManagedProcess {{ name = "web"; process = "/bin/web"; }}; }}',
        tools=replace(bench.context.tools, may_download=True),
    )
    assert model["web"].port == 8080
    assert "/port" in asked
