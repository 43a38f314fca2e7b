"""Models from expressions: what arrives of what the user wrote."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc import Instance, create_managed_process
from pytest_nixproc.errors import Fault, SourceError
from pytest_nixproc.managers import supervisord, sysvinit
from pytest_nixproc.managers.overriding import overridden
from pytest_nixproc.model.ids import Ids, ProvisionalIds
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.nix import gc_roots
from pytest_nixproc.sources.nix.command import program
from pytest_nixproc.values.location import Location
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

if TYPE_CHECKING:
    from tests.nix.conftest import Bench

EVERYTHING = """
    { stateDir, runtimeDir, logDir, cacheDir, spoolDir, lockDir, libDir, tmpDir, forceDisableUserChange
    , processManager, system, callingUser, callingGroup, greeting
    }:
    rec {
      db = {
        socketFile = "${runtimeDir}/db.sock";
        pkg = createManagedProcess {
          instanceName = "db";
          daemon = "/opt/db/bin/db";
          daemonArgs = [ "-D" ];
          pidFile = "${runtimeDir}/own.pid";
        };
      };
      web = rec {
        port = 5000;
        adminPort = 5001;
        dnsName = "web.local";
        nested = { a = [ 1 "two" null true ]; };
        helper = x: x;
        pkg = createManagedProcess {
          name = "web-é";
          instanceName = "web";
          description = "It's the \\"web\\" at ${toString port}";
          process = "/opt/web/bin/web";
          args = [ 1 "a b" true null [ "c" 2 ] 1.5 ];
          foregroundProcess = "/opt/web/bin/web-fg";
          foregroundProcessExtraArgs = [ "-f" ];
          daemonExtraArgs = [ "-d" ];
          initialize = "mkdir -p ${libDir}\\n";
          path = [ "/opt/tools" ];
          environment = { PORT = port; SPOOL = spoolDir; LOCK = lockDir; CACHE = cacheDir; YES = true; NONE = null; };
          directories."${libDir}/web" = { mode = "0750"; };
          files."${runtimeDir}/web.conf" = "listen ${toString port}";
          limits = { openFiles = 100; coreSize = "unlimited"; };
          stopSignal = "QUIT";
          reloadSignal = "SIGUSR1";
          directory = tmpDir;
          umask = "0027";
          nice = 5;
          user = "web";
          dependencies = [ db.pkg ];
          credentials = {
            groups.web = { gid = 2000; };
            users.web = { group = "web"; homeDir = "${stateDir}/home"; createHomeDir = true; };
          };
          overrides = { systemd.Service.Restart = "always"; sysvinit.runlevels = [ 3 5 ]; };
          postInstall = "echo ${greeting} ${processManager} ${callingUser} ${callingGroup} > $out/note";
        };
      };
    }
"""


def in_python(bench: Bench) -> ProcessesModel:
    """Return the model of :data:`EVERYTHING`, written in Python."""
    state = bench.context.state
    db = create_managed_process(
        instance_name="db", daemon="/opt/db/bin/db", daemon_args=["-D"], pid_file=f"{state.runtime_dir}/own.pid"
    )
    web = create_managed_process(
        name="web-é",
        instance_name="web",
        description='It\'s the "web" at 5000',
        process="/opt/web/bin/web",
        args=["1", "a b", "1", "", "c 2", "1.500000"],
        foreground_process="/opt/web/bin/web-fg",
        foreground_process_extra_args=["-f"],
        daemon_extra_args=["-d"],
        initialize=f"mkdir -p {state.lib_dir}\n",
        path=["/opt/tools"],
        environment={
            "PORT": 5000,
            "SPOOL": state.spool_dir,
            "LOCK": state.lock_dir,
            "CACHE": state.cache_dir,
            "YES": "1",
            "NONE": "",
        },
        directories={f"{state.lib_dir}/web": {"mode": "0750"}},
        files={f"{state.runtime_dir}/web.conf": "listen 5000"},
        limits={"open_files": 100, "core_size": "unlimited"},
        stop_signal="QUIT",
        reload_signal="USR1",
        directory=state.tmp_dir,
        umask="0027",
        nice=5,
        user="web",
        dependencies=[db],
        credentials={
            "groups": {"web": {"gid": 2000}},
            "users": {"web": {"group": "web", "home_dir": f"{state.state_dir}/home", "create_home_dir": True}},
        },
        overrides={"systemd": {"Service": {"Restart": "always"}}, "sysvinit": {"runlevels": [3, 5]}},
        post_install="echo hello supervisord me mine > $out/note",
    )
    nested = {"a": [1, "two", None, True]}
    return ProcessesModel(
        {
            "db": Instance(db, socket_file=f"{state.runtime_dir}/db.sock"),
            "web": Instance(web, port=5000, admin_port=5001, dns_name="web.local", nested=nested),
        }
    )


def facts_of(process: ManagedProcess) -> dict[str, Any]:
    """Return all fields of a process but where it was written down, its dependencies by their names."""
    names = [getattr(item, "name", item) for item in process.dependencies]
    facts = {item.name: getattr(process, item.name) for item in fields(process) if item.name != "defined_at"}
    return facts | {"dependencies": names}


def test_equal_models(bench: Bench) -> None:
    """A system in Nix and the same system in Python are equal models, field by field."""
    context = replace(bench.context, calling_user="me", calling_group="mine", params={"greeting": "hello"})
    bench.context = context
    ours, theirs = bench.read(EVERYTHING), in_python(bench)
    assert list(ours) == list(theirs)
    assert (ours.levels, ours.dependencies, ours.pools) == (theirs.levels, theirs.dependencies, theirs.pools)
    for name in theirs:
        assert dict(ours[name].attributes) == dict(theirs[name].attributes)
        assert facts_of(ours[name].pkg) == facts_of(theirs[name].pkg)
        assert ours[name].declared_ports == theirs[name].declared_ports


DEFAULTS = """
    let
      web = createManagedProcess {
        instanceName = "web"; process = "/bin/web"; args = [ "a" ]; daemonExtraArgs = [ "d" ];
      };
      own = createManagedProcess { name = "own"; user = "own"; daemon = "/bin/own"; foregroundProcessArgs = [ "f" ]; };
      shown = pkg: removeAttrs pkg [ "given" "written" "nixprocType" ];
    in { web = { pkg = web; shown = shown web; own = shown own; }; }
"""


def test_places(bench: Bench) -> None:
    """What a model holds can be traced to the line of the expression that says it."""
    model = bench.read("""
        { web = {
            adminPort = 5001;
            pkg = createManagedProcess {
              name = "web"; process = "/bin/web";
              pidFile = "/run/own.pid";
              credentials.groups.web = { }; }; }; }
    """)
    lines = {"admin_port": 4, "pkg.pid_file": 7, "pkg.process": 6, "pkg.credentials.groups.web": 8, "nowhere": 3}
    for place, line in lines.items():
        assert model.locate("web", place) == Location(str(bench.directory / "processes.nix"), line)


SHOWN: dict[str, Any] = (
    {"name": "web", "instanceName": "web", "description": "web", "process": "/bin/web", "args": ["a"]}
    | {"foregroundProcess": "/bin/web", "foregroundProcessExtraArgs": [], "foregroundProcessArgs": ["a"]}
    | {"daemon": "/bin/web", "daemonExtraArgs": ["d"], "daemonArgs": ["a", "d"], "pidFile": "/var/run/web.pid"}
    | {"initialize": "", "path": [], "environment": {}, "directory": None, "umask": None, "nice": None}
    | {"user": None, "dependencies": [], "credentials": {"groups": {}, "users": {}}, "overrides": {}}
    | {"postInstall": "", "directories": {}, "files": {}, "stopSignal": None, "reloadSignal": None, "limits": {}}
)


def test_defaults(bench: Bench) -> None:
    """A process can be asked for all of its parameters, with their defaults and precedence."""
    attributes = bench.read(DEFAULTS)["web"].attributes
    assert attributes["shown"] == SHOWN
    own = attributes["own"]
    assert (own["pidFile"], own["foregroundProcessArgs"], own["daemonArgs"]) == ("/tmp/own.pid", ["f"], [])
    assert (own["process"], own["foregroundProcess"], own["daemon"]) == (None, None, "/bin/own")


def test_library_takes_every_argument(bench: Bench) -> None:
    """The library accepts all that the original's functions are given, each optional."""
    names = ["system", "stateDir", "runtimeDir", "logDir", "cacheDir", "spoolDir", "lockDir", "libDir", "tmpDir"]
    names += ["forceDisableUserChange", "processManager", "ids", "pkgs"]
    text = f"""
        {{ {", ".join(name if name != "pkgs" else "pkgs ? null" for name in names)} }}:
        let library = import <pytest-nixproc> {{ inherit {" ".join(names)}; }}; in
        {{ web.pkg = library.createManagedProcess {{ name = "web"; process = "/bin/web"; }}; }}
    """
    assert bench.read_file(bench.write(text))["web"].pkg.process == "/bin/web"


def test_documented_expression(bench: Bench) -> None:
    """What the documentation shows of an expression can be deployed."""
    page = Path(__file__).parents[2] / "docs" / "nix.md"
    _, _, rest = page.read_text(encoding="utf-8").partition("```nix\n# processes.nix\n")
    text, _, _ = rest.partition("```\n")
    bench.write('{ system }: "/opt/webapp"', "webapp/default.nix")
    model = bench.read_file(bench.write(text), params={"port": 5005})
    assert model["webapp"].pkg.environment["PORT"] == "5005"
    assert model.levels == (("webapp",), ("proxy",))


def test_parameter_in_both_spellings(bench: Bench) -> None:
    """Of a parameter that is given in both spellings, each is passed on under its own, if the expression has that."""
    process = 'createManagedProcess { name = "web"; process = "/bin/web"; args = [ greetAll greet_all ]; }'
    text = f"{{ greetAll, greet_all }}: {{ web.pkg = {process}; }}"
    assert bench.read(text, params={"greet_all": "a", "greetAll": "b"})["web"].pkg.args == ("b", "a")


def test_flat_set(bench: Bench) -> None:
    """An expression may be a set, when it needs to be told nothing."""
    assert list(bench.read('{ web.pkg = createManagedProcess { name = "web"; process = "/bin/web"; }; }')) == ["web"]


def test_calculated_numbers(bench: Bench) -> None:
    """Credentials get the numbers that are assigned to their names, unless they have some."""
    text = """
        let
          library = import <pytest-nixproc> { ids = { gids.a = 1; uids = { a = 2; b = 3; }; }; };
          credentials = library.createCredentials { groups.a = { }; users = { a = { }; b.uid = 4; }; };
        in { web.pkg = library.createManagedProcess { name = "web"; process = "/bin/web"; inherit credentials; }; }
    """
    credentials = bench.read_file(bench.write(text))["web"].pkg.credentials
    assert credentials.groups["a"].gid == 1
    assert [credentials.users[name].uid for name in "ab"] == [2, 4]


BUILT = """
    let
      write = name: text: derivation {
        inherit name text;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [ "-c" "echo \\"$text\\" > $out" ];
      };
      web = write "web" "a program";
      conf = write "conf" "a configuration";
    in { web.pkg = createManagedProcess {
      name = "web";
      process = web;
      args = [ "-c" conf "-t" "${conf}.more" ./processes.nix ];
      path = [ web ];
      overrides.supervisord.environment.CONF = "${write "third" "an override"}";
    }; }
"""


def test_everything_is_built(bench: Bench, nix: str) -> None:
    """Everything that a model refers to is built, wherever it does, and protected by links in the directory."""
    model = bench.read(BUILT)
    process = model["web"].pkg
    assert process.process is not None
    assert process.process.startswith(f"{nix}/")
    assert not os.path.exists(process.process)
    place = bench.directory / "roots"
    place.mkdir()
    model.provide(str(place))
    third = process.overrides["supervisord"]["environment"]["CONF"]  # type: ignore[index]
    wanted = {process.process, process.args[1], process.args[4], third}
    assert process.path == (process.process,)
    assert process.args[3] == f"{process.args[1]}.more"
    assert {os.path.realpath(root) for root in place.iterdir()} == wanted
    assert all(os.path.isfile(path) for path in wanted)


def collect_garbage() -> None:
    """Have Nix remove from its store what nobody needs."""
    subprocess.run([program("nix-store"), "--gc"], check=True, capture_output=True)


def test_garbage_collector(bench: Bench) -> None:
    """What a deployment needs outlives garbage collections as long as its directory exists, and no longer.

    The second deployment, which finds everything built, runs nothing for that.
    """
    model = bench.read(BUILT.replace("a program", "a program of this test"))
    built = model["web"].pkg.process
    assert built is not None
    for place in (bench.directory / "first", bench.directory / "second"):
        place.mkdir()
        model.provide(str(place))
    assert bench.commands == ["nix-instantiate", "nix-store"]
    for place in (bench.directory / "first", bench.directory / "second"):
        collect_garbage()
        assert os.path.isfile(built)
        shutil.rmtree(place)
    collect_garbage()
    assert not os.path.exists(built)


def test_built_again(bench: Bench) -> None:
    """What was built once, and collected since, is built again."""
    model = bench.read(BUILT.replace("a program", "a program that is lost"))
    built = model["web"].pkg.process
    assert built is not None
    for number in range(2):
        place = bench.directory / str(number)
        place.mkdir()
        model.provide(str(place))
        assert os.path.isfile(built)
        shutil.rmtree(place)
        if number == 0:
            subprocess.run([program("nix-store"), "--delete", built], check=True, capture_output=True)


def test_nix_asked_for_roots(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Nix's state is not ours to write, Nix is asked to protect what a deployment needs, each time."""
    monkeypatch.setattr(gc_roots, "protect", lambda *_: False)
    model = bench.read(BUILT)
    for name in ("first", "second"):
        (bench.directory / name).mkdir()
        model.provide(str(bench.directory / name))
        assert list((bench.directory / name).iterdir())
    assert bench.commands.count("nix-store") == 2


def test_nothing_to_build(bench: Bench) -> None:
    """A model that refers to nothing of the store runs no build."""
    bench.read('{ web.pkg = createManagedProcess { name = "web"; process = "/bin/web"; }; }').provide("/nowhere")
    assert bench.commands == ["nix-instantiate"]


FUNCTIONS = """
    { processManager }: { web.pkg = createManagedProcess {
      name = "web";
      process = "/bin/web";
      overrides = {
        supervisord = generated:
          removeAttrs generated [ "umask" ] // { command = "${generated.command} --${processManager}"; };
        docker.container = generated: generated // { n = generated.n + 1; };
      };
    }; }
"""


def changed(manager: str, process: ManagedProcess, parameters: dict[str, Any], **options: Any) -> Mapping[str, Any]:
    """Return parameters as a process overrides them."""
    faults: list[Fault] = []
    found = overridden(manager, process, parameters, faults, **options)
    assert not faults
    return found.values


def test_function_overrides(bench: Bench) -> None:
    """A function gets the generated parameters, and can remove some; it is applied when a generator asks for it."""
    process = bench.read(FUNCTIONS)["web"].pkg
    assert bench.commands == ["nix-instantiate"]
    generated = {"command": "/bin/web", "umask": "022"}
    for _ in range(2):
        assert changed("supervisord", process, generated) == {"command": "/bin/web --supervisord"}
    assert bench.commands == ["nix-instantiate"] * 2
    assert changed("docker", process, {"n": 1}, part="container") == {"n": 2}


def test_function_overrides_have_the_spelling_of_nix(bench: Bench) -> None:
    """A function gets parameters of ours in camelCase, as they are documented for Nix, and returns them so."""
    text = """
        { web.pkg = createManagedProcess {
          name = "web";
          process = "/bin/web";
          overrides.sysvinit = given: given // { stopSeconds = given.stopSeconds + 23; args = given.args ++ [ "-x" ]; };
          overrides.supervisord = given: given // { environment = given.environment // { B = "2"; }; };
        }; }
    """
    target = Target(StateDirs.under("/srv/state"), "/srv/profile")
    script, section = (unit.files[0].content for unit in units_of(bench.read(text), target, sysvinit, supervisord))
    assert "\nstop_seconds=33\n" in script
    assert "-x" in script
    assert 'B="2"' in section


def units_of(model: ProcessesModel, target: Target, *managers: ModuleType) -> Iterator[Unit]:
    """Yield the unit that each manager has for a process."""
    return (manager.MANAGER.unit("web", model, target) for manager in managers)


def test_error_in_a_function_override(bench: Bench) -> None:
    """An error in a function is one of the expression."""
    text = FUNCTIONS.replace("removeAttrs generated", "removeAttrs generated.nothing")
    process = bench.read(text)["web"].pkg
    with pytest.raises(SourceError, match=r"processes\.nix:8:\d+: attribute 'nothing' missing"):
        changed("supervisord", process, {"command": "/bin/web"})


IDS = """
    { ids, stateDir }: {
      b = { port = ids.webPorts.b; requiresUniqueIdsFor = [ "webPorts" ];
        pkg = createManagedProcess { name = "b"; process = "/bin/b"; }; };
      a = { port = ids.webPorts.a or 0; requiresUniqueIdsFor = [ "webPorts" "uids" ]; uid = ids.uids.a;
        pkg = createManagedProcess { name = "a"; process = "/bin/a"; }; };
    }
"""


def test_ids(bench: Bench) -> None:
    """Before ids are assigned, a model has those that it will most likely get; then the evaluation is not repeated."""
    bench.write(
        "{ webPorts = { min = 7000; max = 7999; }; uids = { min = 2000; max = 2999; step = 10; }; }", "idresources.nix"
    )
    model = bench.read(IDS, ids=ProvisionalIds())
    assert model.id_requests == {"a": ("webPorts", "uids"), "b": ("webPorts",)}
    assert (model["a"].port, model["b"].port, model["a"].uid) == (7000, 7001, 2000)
    assert bench.read(IDS, ids=Ids({"webPorts": {"a": 7000, "b": 7001}, "uids": {"a": 2000}}))["b"].port == 7001
    assert bench.commands == ["nix-instantiate"]
    assert bench.read(IDS, ids=Ids({"webPorts": {"a": 7005, "b": 7006}, "uids": {"a": 2000}}))["b"].port == 7006
    assert bench.commands == ["nix-instantiate"] * 2


def test_attribute_of_a_file(bench: Bench) -> None:
    """``FILE.nix#NAME`` is one of several models in a file."""
    path = bench.write("""
        let library = import <pytest-nixproc> { }; in
        { systems.small = { port ? 1 }: { web = {
            inherit port; pkg = library.createManagedProcess { name = "web"; process = "/bin/web"; }; }; }; }
    """)
    assert bench.read_file(f"{path}#systems.small", params={"port": 7})["web"].port == 7
    with pytest.raises(SourceError, match=re.escape(f"{path}#systems.large: attribute 'large' missing")):
        bench.read_file(f"{path}#systems.large")


def test_flake(bench: Bench) -> None:
    """``DIRECTORY#NAME`` is an output of a flake, which is another when a file of it has changed."""
    flake = """
        { outputs = { self }: {
            processes = { port ? import ./port.nix }: { web = { inherit port; pkg = {
              nixprocType = "process"; name = "web"; given = { name = "web"; process = "/bin/web"; }; }; }; }; }; }
    """
    bench.write(flake, "flake.nix")
    for port in (7, 8):
        bench.write(str(port), "port.nix")
        assert bench.read_file(f"{bench.directory}#processes")["web"].port == port


def test_no_flake(bench: Bench) -> None:
    """A directory without a flake is refused."""
    with pytest.raises(SourceError, match=r"model is no flake: it has no flake\.nix"):
        bench.read_file(f"{bench.directory}#processes")


ORIGINAL = """
    { processManager, stateDir, port ? 5000 }:
    let
      createManagedProcess = import ./framework { inherit processManager; };
      program = derivation {
        name = "program"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo > $out" ];
      };
    in rec {
      web = { inherit port; pkg = createManagedProcess {
        instanceName = "web"; process = "${program}"; environment = { PORT = port; }; postInstall = "true"; }; };
      proxy.pkg = createManagedProcess {
        name = "the-proxy"; process = "/bin/proxy"; dependencies = [ web.pkg ]; args = [ stateDir ];
        overrides = { sysvinit.runlevels = [ 3 ]; OVERRIDE }; };
    }
"""


@pytest.mark.usefixtures("framework")
def test_original_framework(bench: Bench) -> None:
    """The original's agnostic configurations become processes; dependencies are known by their packages."""
    model = bench.read_file(bench.write(ORIGINAL.replace("OVERRIDE", "")))
    assert bench.commands == ["nix-instantiate"]
    assert model.dependencies == {"proxy": ("web",), "web": ()}
    web, proxy = model["web"].pkg, model["proxy"].pkg
    assert (web.environment, web.post_install, proxy.name) == ({"PORT": "5000"}, "true", "the-proxy")
    assert proxy.args == (bench.context.state.state_dir,)
    place = bench.directory / "roots"
    place.mkdir()
    model.provide(str(place))
    assert web.process is not None
    assert os.path.isfile(web.process)


@pytest.mark.usefixtures("framework")
def test_function_override_of_the_original(bench: Bench) -> None:
    """A function override of a process of the original's is kept, although its configurations cannot hold one."""
    override = 'supervisord = generated: removeAttrs generated [ "umask" ] // { command = "${program}"; };'
    model = bench.read_file(bench.write(ORIGINAL.replace("OVERRIDE", override)))
    process = model["proxy"].pkg
    assert process.overrides["sysvinit"] == {"runlevels": [3]}
    given = {"command": "/bin/proxy", "umask": "022", "nice": 1}
    assert changed("supervisord", process, given) == {"command": model["web"].pkg.process, "nice": 1}
