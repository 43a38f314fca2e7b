"""The three models that Disnix deploys a system from: services, infrastructure and distribution, as Nix expressions.

What they hold is in the chapter "Modeling" of Disnix's manual; the system is on one machine here.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Final

from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.names import camel_case
from pytest_nixproc.model.nix_syntax import NixExpression, NoValue, attributes, literal, quote
from pytest_nixproc.model.system import ProcessesModel

TARGET: Final = "localhost"

SERVICES: Final = """\
{{ distribution, invDistribution, system, pkgs }}:

let
  component = name: directory: builtins.path {{ inherit name; path = ./. + directory; }};
  services = {services};
in
services
"""

DISTRIBUTION: Final = """\
{{ infrastructure }}:

{distribution}
"""


def models_of(
    model: ProcessesModel, service_type: str, packages: Mapping[str, tuple[str, str]], properties: Mapping[str, object]
) -> dict[str, str]:
    """Return the models by the names of their files: services, the only machine, and the distribution to it.

    ``service_type`` is the module of Dysnomia that activates services, ``properties`` are its settings; ``packages``
    are a name and a directory for each instance, beginning with a slash, below that of the file.
    """
    services = {key: service(key, model, service_type, packages[key]) for key in model}
    machine = {"properties": {"hostname": TARGET}, "containers": {service_type: dict(properties)}}
    targets = {key: [NixExpression(f"infrastructure.{quote(TARGET)}")] for key in model}
    return {
        "services.nix": SERVICES.format(services=attributes(services, "  ")),
        "infrastructure.nix": attributes({TARGET: machine}) + "\n",
        "distribution.nix": DISTRIBUTION.format(distribution=attributes(targets)),
    }


def service(key: str, model: ProcessesModel, service_type: str, package: tuple[str, str]) -> dict[str, object]:
    """Return one service with the attributes of its instance that Nix has values for.

    What depends on others is a function of them, whether or not it wants to know them.
    """
    keys = {id(other): name for name, other in model.items()}
    values = {camel_case(name): referring(value, keys) for name, value in model[key].attributes.items()}
    component = f"component {quote(package[0])} {quote(package[1])}"
    dependencies = {name: reference(name) for name in model.dependencies[key]}
    return {
        **{name: value for name, value in values.items() if is_literal(value)},
        "name": key,
        "pkg": NixExpression(f"_: {component}" if dependencies else component),
        "type": service_type,
        **({"dependsOn": dependencies} if dependencies else {}),
    }


def reference(key: str) -> NixExpression:
    """Return the Nix expression that refers to a service of the model."""
    return NixExpression(f"services.{quote(key)}")


def referring(value: object, keys: Mapping[int, str]) -> object:
    """Return a value with each of the model's instances replaced by a reference to its service, and paths by text."""
    if isinstance(value, Instance) and id(value) in keys:
        return reference(keys[id(value)])
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {name: referring(item, keys) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [referring(item, keys) for item in value]
    return value


def is_literal(value: object) -> bool:
    """Tell whether a value can be written as a Nix expression."""
    try:
        literal(value)
    except NoValue:
        return False
    return True
