"""The three models that Disnix deploys a system from: services, infrastructure and distribution, as Nix expressions.

What they hold is in the chapter "Modeling" of Disnix's manual; the system is on one machine here.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Final

from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.nix.syntax import Expression, NoValue, attributes, literal, names_in_nix, quote

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


def services_model(model: ProcessesModel, service_type: str, packages: Mapping[str, tuple[str, str]]) -> str:
    """Return the services of a model: each instance with its attributes, and after those that it depends on.

    ``service_type`` is the module of Dysnomia that activates them; ``packages`` are a name and a directory for each,
    beginning with a slash, below that of the file. Attributes that Nix has no value for are left out.
    """
    services = {key: service(key, model, service_type, packages[key]) for key in model}
    return SERVICES.format(services=attributes(services, "  "))


def service(key: str, model: ProcessesModel, service_type: str, package: tuple[str, str]) -> dict[str, object]:
    """Return one service; what depends on others is a function of them, whether or not it wants to know them."""
    component = f"component {quote(package[0])} {quote(package[1])}"
    dependencies = {name: reference(name) for name in model.dependencies[key]}
    return {
        **attributes_of(model[key], model),
        "name": key,
        "pkg": Expression(f"_: {component}" if dependencies else component),
        "type": service_type,
        **({"dependsOn": dependencies} if dependencies else {}),
    }


def reference(key: str) -> Expression:
    """Return the expression that is a service of the model."""
    return Expression(f"services.{quote(key)}")


def attributes_of(instance: Instance, model: ProcessesModel) -> dict[str, object]:
    """Return the attributes of an instance that Nix has values for; other instances are referred to."""
    keys = {id(other): key for key, other in model.items()}
    values = names_in_nix({name: referring(value, keys) for name, value in instance.attributes.items()})
    return {name: value for name, value in values.items() if is_literal(value)}


def referring(value: object, keys: Mapping[int, str]) -> object:
    """Return a value in which references stand for the model's instances, and paths are text."""
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
    """Tell whether Nix has a value for it."""
    try:
        literal(value)
    except NoValue:
        return False
    return True


def infrastructure_model(service_type: str, properties: Mapping[str, object]) -> str:
    """Return the only machine, with the settings of the module that activates the services."""
    machine = {"properties": {"hostname": TARGET}, "containers": {service_type: dict(properties)}}
    return attributes({TARGET: machine}) + "\n"


def distribution_model(model: ProcessesModel) -> str:
    """Return where the services go."""
    targets = {key: [Expression(f"infrastructure.{quote(TARGET)}")] for key in model}
    return DISTRIBUTION.format(distribution=attributes(targets))
