"""The models that Disnix deploys from, evaluated by Nix: all values arrive byte for byte.

Nix is asked for hashes: what it prints of a string would have to be unescaped by rules of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc import ready
from pytest_nixproc.managers.disnix import MANAGER
from pytest_nixproc.managers.disnix.generator import DisnixGenerator
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.conformance import AWKWARD_NAMES, HOSTILE
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target

Evaluate = Callable[[str], Any]

MODELS = """
let
  services = import ./etc/disnix/services.nix {
    distribution = { }; invDistribution = { }; system = "any"; pkgs = { };
  };
  infrastructure = import ./etc/disnix/infrastructure.nix;
  distribution = import ./etc/disnix/distribution.nix { inherit infrastructure; };
  hash = builtins.hashString "sha256";
  told = service: if service ? dependsOn then service.pkg service.dependsOn else service.pkg;
in
"""


def process(name: str, **parameters: Any) -> ManagedProcess:
    """Return a process that nobody starts."""
    return create_managed_process(name=name, process="/bin/web", **parameters)


def sha256(value: str) -> str:
    """Return the hash of a value's bytes."""
    return hashlib.sha256(os.fsencode(value)).hexdigest()


@pytest.fixture
def evaluate(tmp_path: Path, need: Callable[[str], str]) -> Evaluate:
    """Return a function that evaluates an expression about the models, with a store of the test's own."""
    program = need("nix-instantiate")
    own = {name: f"{tmp_path}/nix/{name}" for name in ("NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR", "NIX_CONF_DIR")}
    settings = {"NIX_CONFIG": "build-users-group =\nsubstitute = false", "HOME": f"{tmp_path}/nix", **own}

    def evaluate(expression: str) -> Any:
        command = (program, "--eval", "--strict", "--json", "--read-write-mode", "-E", MODELS + expression)
        result = subprocess.run(
            command, cwd=tmp_path / "profile", env=os.environ | settings, capture_output=True, check=False
        )
        assert result.returncode == 0, result.stderr.decode()
        return json.loads(result.stdout)

    return evaluate


def write_profile(instances: Mapping[str, Instance], directory: Path, state: str = "/srv/state") -> None:
    """Write everything that is generated for a model."""
    model = ProcessesModel(instances)
    target = Target(StateDirs.under(state), str(directory))
    generator = DisnixGenerator()
    units = [MANAGER.unit(key, model, target) for key in model]
    for file in (*generator.generate_shared(model, target), *(file for unit in units for file in unit.files)):
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(file.content))


def test_values_arrive_byte_for_byte(evaluate: Evaluate, tmp_path: Path) -> None:
    """Every hostile value of an instance is in the services model as it was given, as value and as name."""
    # Names are compared as JSON, which can only hold text.
    names = [value for value in HOSTILE if "\udcff" not in value and "\x01" not in value]
    web = Instance(process("web"), values=list(HOSTILE), nested={name: index for index, name in enumerate(names)})
    write_profile({"web": web}, tmp_path / "profile")
    assert evaluate("map hash services.web.values") == [sha256(value) for value in HOSTILE]
    found = evaluate("map (name: [ (hash name) services.web.nested.${name} ]) (builtins.attrNames services.web.nested)")
    assert sorted(found) == sorted([sha256(name), index] for index, name in enumerate(names))


def test_types_of_values(evaluate: Evaluate, tmp_path: Path) -> None:
    """Values keep their types, attributes get the names that they have in Nix, and conditions are left out."""
    web = Instance(
        process("web"),
        port=5000,
        dns_name="web.local",
        is_public=True,
        weights=[-1, 0.5, None],
        path=Path("/srv"),
        ready=ready.tcp(5000),
    )
    write_profile({"web": web}, tmp_path / "profile")
    assert evaluate('removeAttrs services.web [ "pkg" ]') == {
        "name": "web",
        "type": "process",
        "port": 5000,
        "dnsName": "web.local",
        "isPublic": True,
        "weights": [-1, 0.5, None],
        "path": "/srv",
    }


def test_dependencies(evaluate: Evaluate, tmp_path: Path) -> None:
    """An instance comes after those that it depends on, knows them, and refers to instances among its attributes."""
    base = Instance(process("base"), port=5000)
    left = Instance(process("left", dependencies=[base.pkg]), port=5001)
    top = Instance(process("top", dependencies=["base", left.pkg]), webapps=[left, base])
    write_profile({"top": top, "left": left, "base": base}, tmp_path / "profile")
    names = "builtins.mapAttrs (_: service: builtins.attrNames (service.dependsOn or { })) services"
    assert evaluate(names) == {"top": ["base", "left"], "left": ["base"], "base": []}
    assert evaluate("services.top.dependsOn.left.port") == 5001
    assert evaluate("map (webapp: webapp.port) services.top.webapps") == [5001, 5000]


def test_packages_are_the_components(evaluate: Evaluate, tmp_path: Path) -> None:
    """What a service is built of is its component, whatever it is called, in the Nix store."""
    instances = {name: Instance(process(name)) for name in AWKWARD_NAMES}
    instances["last"] = Instance(process("last", dependencies=AWKWARD_NAMES))
    write_profile(instances, tmp_path / "profile")
    paths = evaluate('builtins.mapAttrs (_: service: "${told service}") services')
    assert len(set(paths.values())) == len(instances)
    for path in paths.values():
        (settings,) = Path(path).glob("etc/dysnomia/process/*")
        (script,) = Path(path).glob("bin/*")
        assert str(script).removeprefix(path) in settings.read_text()


def test_distribution(evaluate: Evaluate, tmp_path: Path) -> None:
    """Every instance goes to the one machine there is, whose module is told where PID files are."""
    state = "/srv/it's ${here}"
    write_profile({name: Instance(process(name)) for name in AWKWARD_NAMES}, tmp_path / "profile", state)
    targets = evaluate("builtins.mapAttrs (_: targets: map (target: target.properties.hostname) targets) distribution")
    assert targets == {name: ["localhost"] for name in AWKWARD_NAMES}
    assert evaluate("infrastructure.localhost.containers.process") == {"runtimeDir": f"{state}/run", "timeout": 0}
