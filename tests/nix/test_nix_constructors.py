"""Constructors in Nix: what is known of them, what they are given, and what they do not pass on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc import Instance, ProcessesModel, create_managed_process, ready
from pytest_nixproc.checks.constructor import compare, nixproc_checks
from pytest_nixproc.errors import ModelError, NixprocError, SourceError
from pytest_nixproc.model.constructors import Constructor, ConstructorTrial
from pytest_nixproc.model.ids import ProvisionalPorts
from pytest_nixproc.sources.files import FILES
from pytest_nixproc.sources.nix.expressions import read_constructor
from pytest_nixproc.values.findings import Finding

if TYPE_CHECKING:
    from tests.nix.conftest import Bench

HEAD = """
    { stateDir, runtimeDir, libDir, tmpDir, program ? "/opt/server", processManager ? null }:
    let
      inherit (import <pytest-nixproc> { inherit stateDir runtimeDir tmpDir; }) createManagedProcess;
      file = name: text: derivation {
        inherit name text;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [ "-c" "echo \\"$text\\" > $out" ];
      };
      process = name: parameters: createManagedProcess ({ inherit name; process = program; } // parameters);
    in
"""

RIGHT = """{
      server = { port, level ? "info", backend ? null, instanceSuffix ? "", instanceName ? "server${instanceSuffix}" }:
        process instanceName {
          inherit instanceName;
          args = [ "--config" "${file "${instanceName}.conf" "listen 127.0.0.1:${toString port}"}" ];
          environment = { PORT = port; LEVEL = level; };
          user = instanceName;
          directory = libDir;
          dependencies = if backend == null then [ ] else [ backend.pkg ];
          initialize = "touch ${tmpDir}/${instanceName} ${toString (backend.port or "")}";
        };
    }
"""


def constructor(bench: Bench, text: str, name: str = "server", **params: Any) -> Constructor:
    """Return a constructor from a file that has our library at hand."""
    path = bench.write(dedent(HEAD) + dedent(text), "constructors.nix")
    return read_constructor(path, name, replace(bench.context, params=params))


def findings(bench: Bench, text: str, vary: Mapping[str, list[Any]] | None = None, **params: Any) -> list[Finding]:
    """Return what all rules find in a constructor."""
    trial = ConstructorTrial(constructor(bench, text, **params), vary or {})
    comparison = compare(trial, replace(bench.context, params=params), FILES)
    return [finding for rule in nixproc_checks() for finding in rule.constructor(comparison)]


def model(bench: Bench, text: str, shared: Mapping[str, Any] | None = None, **params: Any) -> ProcessesModel:
    """Return the model of two instances."""
    trial = ConstructorTrial(constructor(bench, text, **params), shared=lambda _: shared or {})
    return trial.load(replace(bench.context, params=params, free_port=ProvisionalPorts()))


def test_parameters(bench: Bench) -> None:
    """They are told in the order of the file, with those defaults that can be read off, and their lines."""
    text = """{
      server = {
        port, # the first
        webapps
      , level ? "low", verbose ? false, jobs ? -4 /* more */, port2Port ? 81}: null;
      computed = { a ? 1 + 1, b ? "${toString 1}", c ? [ ], d ? null, e'-x ? "a\\"b", f ? a.y or 2
        , g ? 0022, h ? "a\tb", ... }: null;
    }
    """
    found = constructor(bench, text).parameters
    written = (bench.directory / "constructors.nix").read_text(encoding="utf-8").splitlines()
    assert [(item.name, item.is_required, item.default, item.annotation) for item in found.values()] == [
        ("port", True, None, ""),
        ("webapps", True, None, ""),
        ("level", False, "low", "str"),
        ("verbose", False, False, "bool"),
        ("jobs", False, -4, "int"),
        ("port2Port", False, 81, "int"),
    ]
    lines = [item.location.line for item in found.values() if item.location]
    assert [written[line - 1].partition(item)[1] for line, item in zip(lines, found, strict=True)] == list(found)
    computed = constructor(bench, text, "computed").parameters
    assert {item.annotation for item in computed.values()} == {"Any"}, "what JSON does not have is not read off either"


def test_instances(bench: Bench) -> None:
    """Each instance gets parameters of its own, declares its port, and names the place where a value was written."""
    made = model(bench, RIGHT)
    assert list(made) == ["server1", "server2"]
    ports = [instance.port for instance in made.values()]
    assert len(set(ports)) == 2
    assert [instance.pkg.environment["PORT"] for instance in made.values()] == [str(port) for port in ports]
    location = made.locate("server2", "pkg.environment.PORT")
    assert location is not None
    with open(location.file, encoding="utf-8") as file:
        assert "PORT = port" in file.readlines()[location.line - 1]


def test_files_are_built(bench: Bench, nix: str) -> None:
    """What the instances refer to is built when they are deployed, and no more than that."""
    made = model(bench, RIGHT)
    configurations = [instance.pkg.args[1] for instance in made.values()]
    assert all(path.startswith(nix) for path in configurations)
    assert not any(map(os.path.exists, configurations))
    directory = bench.directory / "deployment"
    directory.mkdir()
    made.provide(str(directory))
    texts = [Path(path).read_text(encoding="utf-8") for path in configurations]
    assert texts == [f"listen 127.0.0.1:{instance.port}\n" for instance in made.values()]


def test_right_constructor_has_no_findings(bench: Bench) -> None:
    """Nothing is found in what passes everything on, and nothing is run again for it."""
    assert findings(bench, RIGHT) == []
    bench.commands.clear()
    assert findings(bench, RIGHT) == []
    assert set(bench.commands) <= {"nix-instantiate"}, "only what was refused is tried again"


def test_few_evaluations(bench: Bench) -> None:
    """One tells the parameters, one makes all instances, and one those with one parameter changed."""
    text = """{
      server = { port, adminPort ? 9000, level ? "info", instanceSuffix }:
        process "w${instanceSuffix}" {
          args = [ "${file "${instanceSuffix}.conf" "${toString port} ${toString adminPort} ${level}"}" ];
        };
    }"""
    assert findings(bench, text) == []
    assert bench.commands == ["nix-instantiate", "nix-instantiate", "nix-store", "nix-instantiate", "nix-store"]


def test_instances_with_attributes(bench: Bench) -> None:
    """A constructor may return a whole instance, which then says itself what it declares."""
    text = """{
      server = { port, instanceSuffix }: {
        webPort = port; dnsName = "w${instanceSuffix}.local"; pkg = process "w${instanceSuffix}" { args = [ port ]; };
      };
    }"""
    made = model(bench, text)
    assert made["w2"].dns_name == "w2.local"
    assert set(made["w2"].declared_ports) == {"web_port"}
    assert findings(bench, text) == []


def test_shared_instances(bench: Bench) -> None:
    """Instances made in Python are sets with attributes and a process, which can be depended on."""
    process = create_managed_process(name="data-base", process="/opt/db", instance_name="db")
    backend = Instance(process, port=5432, dns_name="db.local", ready=ready.tcp(5432))
    made = model(bench, RIGHT, {"backend": backend})
    assert list(made) == ["data-base", "server1", "server2"]
    assert made.dependencies["server1"] == ("data-base",)
    assert made["server1"].pkg.initialize.endswith(" 5432")


def test_values_of_all_kinds(bench: Bench) -> None:
    """Text arrives byte for byte, and what JSON has stays what it is."""
    text = "{ server = { value, instanceSuffix }: process instanceSuffix { environment.V = builtins.toJSON value; }; }"
    value = {"text": "a\n${b} ''c'' \"d\" \\ é", "numbers": [1, -2.5, True, None], "set": {"a b": []}}
    made = model(bench, text, {"value": value})
    assert made["1"].pkg.environment["V"] == (
        r'{"numbers":[1,-2.5,true,null],"set":{"a b":[]},"text":"a\n${b} ' + r"''c'' \"d\" \\ é" + '"}'
    )


def test_parameters_of_the_file(bench: Bench) -> None:
    """The user's own parameters are for the file, unless the constructor has them; unknown ones are refused."""
    made = model(bench, RIGHT, program="/opt/other", level="debug")
    assert made["server1"].pkg.process == "/opt/other"
    assert made["server1"].pkg.environment["LEVEL"] == "debug"
    with pytest.raises(SourceError, match=r"constructors\.nix:server: it has no parameter 'colour'"):
        model(bench, RIGHT, colour="red")


def test_constructor_in_a_set(bench: Bench) -> None:
    """A path of names leads to constructors in sets."""
    text = '{ web.servers.small = { instanceName, size ? "s" }: process instanceName { args = [ size ]; }; }'
    found = constructor(bench, text, "web.servers.small")
    assert (found.name, list(found.parameters)) == ("small", ["instanceName", "size"])


def test_function_overrides(bench: Bench) -> None:
    """An override that is a function is applied by Nix, for the instance that it belongs to."""
    text = """{
      server = { instanceSuffix }: process "w${instanceSuffix}" {
        overrides.systemd = given: given // { Service.Nice = instanceSuffix; };
      };
    }"""
    override = model(bench, text)["w2"].pkg.overrides["systemd"]
    assert callable(override)
    assert override({"Unit": {}}) == {"Unit": {}, "Service": {"Nice": "2"}}


ORIGINAL = """
    { processManager, runtimeDir }:
    let createManagedProcess = import ./framework { inherit processManager; }; in
    {
      server = { port, instanceSuffix ? "" }: createManagedProcess {
        name = "server${instanceSuffix}"; process = "/opt/server"; environment.PORT = port;
        PIDFILE
      };
    }
"""


@pytest.mark.usefixtures("framework")
@pytest.mark.parametrize(
    ("pid_file", "codes"), [("", []), ('pidFile = "${runtimeDir}/server.pid";', ["NP403"])], ids=["right", "wrong"]
)
def test_constructor_of_the_original(bench: Bench, pid_file: str, codes: list[str]) -> None:
    """Constructors with the original framework make packages, whose configurations are compared."""
    path = bench.write(ORIGINAL.replace("PIDFILE", pid_file), "constructors.nix")
    comparison = compare(ConstructorTrial(read_constructor(path, "server", bench.context)), bench.context, FILES)
    assert [finding.code for rule in nixproc_checks() for finding in rule.constructor(comparison)] == codes


FAULTS = {
    "name": ('{ port, instanceSuffix ? "" }: process "web" { args = [ port instanceSuffix ]; }',
             "NP401", "the name web", "derive it from instanceSuffix"),
    "port": ('{ port, instanceSuffix }: process "w${instanceSuffix}" { environment.PORT = 80; }',
             "NP402", "does not pass port on: every instance of server has TCP port 80", "derive it from port"),
    "port in a file that is built": (
        '{ port, instanceName }: process instanceName { args = [ port "-c" "${file "w.conf" "listen 9000"}" ]; }',
        "NP402", "TCP port 9000", "derive it from port"),
    "default that is written out": (
        '{ port, adminPort ? 9001, instanceSuffix }: process "w${instanceSuffix}" { args = [ port "admin 9001" ]; }',
        "NP402", "does not pass adminPort on", "derive it from adminPort"),
    "PID file": ('{ instanceSuffix }: process "w${instanceSuffix}" { pidFile = "${runtimeDir}/web.pid"; }',
                 "NP403", "/web.pid", "derive it from instanceSuffix"),
    "log in a file that is built": (
        '{ instanceName }: process instanceName { args = [ "-c" "${file "web.conf" "log /var/log/web"}" ]; }',
        "NP403", "the path /var/log/web", "derive it from instanceName"),
    "data directory": ('{ instanceName }: process instanceName { environment.DATA = "${libDir}/data"; }',
                       "NP403", "/lib/data", "derive it from instanceName"),
    "user": ('{ instanceSuffix }: process "w${instanceSuffix}" { user = "web"; }',
             "NP404", "the account web", "derive it from instanceSuffix"),
    "idle parameter": ('{ instanceSuffix, verbose ? false }: process "w${instanceSuffix}" { }',
                       "NP405", "does nothing with its parameter verbose", "pass it on, or remove it"),
    "idle parameter with a computed default": (
        '{ instanceSuffix, jobs ? 1 + 1 }: process "w${instanceSuffix}" { }',
        "NP405", "does nothing with its parameter jobs", "pass it on, or remove it"),
    "port that is only declared": (
        '{ instanceSuffix, port }: { inherit port; pkg = process "w${instanceSuffix}" { }; }',
        "NP405", "does nothing with its parameter port", "pass it on, or remove it"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults(bench: Bench, fault: str) -> None:
    """Each fault is found by the rule that is meant, by no other, and names the parameter and the line."""
    text, code, problem, remedy = FAULTS[fault]
    (finding,) = findings(bench, f"{{\n  server =\n    {text};\n}}\n")
    assert (finding.code, finding.remedy) == (code, remedy)
    assert problem in finding.problem
    assert "constructors.nix" in str(finding.origins[0])


def test_a_refused_value_was_looked_at(bench: Bench) -> None:
    """A parameter whose other value is refused is not idle, and the others are still told apart from it."""
    text = """{
      server = { instanceSuffix, level ? "low", unused ? 0 }:
        assert level == "low"; process "w${instanceSuffix}" { };
    }"""
    (finding,) = findings(bench, text)
    assert "does nothing with its parameter unused" in finding.problem


BROKEN = {
    "absent": ("{ web = { }: null; port = 3; }", "server", "server: there is no such constructor", "are web"),
    "no function": ("{ server = 3; }", "server", "server: there is no such constructor", "set of functions"),
    "below a function": ("{ server = { }: null; }", "server.web", "server.web: there is no such constructor", "server"),
    "file that is no set": ("3", "server", "server: there is no such constructor", "it has to yield a set"),
    "text": ('{ server = { port }: "text"; }', "server", "is a string, which is no managed process", ""),
    "curried": ("{ server = { port }: x: x; }", "server", "is a function, which is no managed process", ""),
    "throws": ('{ server = { port }: throw "no way"; }', "server", r"constructors.nix:13:\d+: no way", ""),
    "recursion": ("{ server = { port }: let f = x: f x; in f port; }", "server", "recursion|stack", ""),
    "typo": ("{ server = { port }: process ports { }; }", "server", "undefined variable 'ports'", ""),
    "unknown value": ("{ server = { what }: process what { }; }", "server", "nothing is known about", "vary it"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_constructors(bench: Bench, fault: str) -> None:
    """What is no constructor, or makes no process, is one error that names it."""
    text, name, problem, remedy = BROKEN[fault]
    with pytest.raises(NixprocError, match=problem) as caught:
        ConstructorTrial(constructor(bench, text, name)).load(replace(bench.context, free_port=ProvisionalPorts()))
    assert isinstance(caught.value, SourceError | ModelError)
    assert "constructors.nix" in str(caught.value)
    assert remedy in caught.value.remedy


def test_values_that_nix_has_not(bench: Bench) -> None:
    """A value that cannot be passed is refused by its name."""
    with pytest.raises(SourceError, match=r"constructors\.nix:server: Nix has no value for backend = <object"):
        model(bench, RIGHT, {"backend": object()})
