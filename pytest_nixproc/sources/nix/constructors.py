"""Constructors in Nix: their parameters as far as they are known, and the values that these can be given."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from pytest_nixproc.errors import SourceError
from pytest_nixproc.model.constructors import ANY_TYPE, Constructed, Parameter
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.names import camel_case
from pytest_nixproc.model.nix_syntax import NoValue
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.sources.nix.reading import Reader
from pytest_nixproc.values.location import Location

LITERAL: Final = re.compile(r"""[\w'-]+\s*\?\s*(-?(?:0|[1-9]\d*)|true|false|"[^"\\$\x00-\x1f]*")\s*(?=[,}#]|/\*)""")
"""A parameter with a default whose value can be read off, as it is also JSON."""


def parameters_of(listed: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return a function's named parameters, in the order in which they are written."""
    in_order = sorted(listed.items(), key=lambda item: position_of(item[1])[1:])
    return {name: parameter_of(name, facts) for name, facts in in_order}


def position_of(facts: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return the file, line and column of a parameter; an empty file where Nix knows no position."""
    position = facts["position"] or {"file": "", "line": 0, "column": 0}
    return position["file"], position["line"], position["column"]


def parameter_of(name: str, facts: Mapping[str, Any]) -> Parameter:
    """Return a parameter from the facts that Nix lists; a default that has to be computed is not known."""
    file, line, column = position_of(facts)
    location = Location(file, line) if file else None
    if not facts["hasDefault"]:
        return Parameter(name, location=location)
    default = default_at(file, line, column)
    kind = ANY_TYPE if default is None else type(default).__name__
    return Parameter(name, is_required=False, default=default, annotation=kind, location=location)


def default_at(file: str, line: int, column: int) -> Any:
    """Return the default that a file has for the parameter at a place, if it is a literal; else None."""
    try:
        with open(file, encoding="utf-8") as opened:
            lines = opened.readlines()[line - 1 :]
    except (OSError, UnicodeDecodeError):
        return None
    literal = LITERAL.match("".join(lines), column - 1)
    return json.loads(literal[1]) if literal else None


def values_in_nix(named: Mapping[str, Mapping[str, Any]], origin: str) -> dict[str, dict[str, Any]]:
    """Return sets of parameter values as JSON data for Nix.

    Raises :class:`~pytest_nixproc.errors.SourceError` for a value that Nix has none for.
    """
    found: dict[str, dict[str, Any]] = {}
    for instance, values in named.items():
        found[instance] = {}
        for name, value in values.items():
            try:
                found[instance][name] = in_nix(value)
            except NoValue:
                remedy = "pass text, numbers, lists, mappings or instances"
                raise SourceError(f"{origin}: Nix has no value for {name} = {value!r}", remedy=remedy) from None
    return found


def in_nix(value: object) -> Any:
    """Return a value as JSON data for Nix; an instance becomes a set with its process, on which others can depend."""
    if isinstance(value, Instance):
        return {**plain_attributes(value), "pkg": in_nix(value.pkg)}
    if isinstance(value, ManagedProcess):
        return {"nixprocType": "process", "name": value.name, "instanceName": value.instance_name}
    if isinstance(value, Mapping):
        return {str(name): in_nix(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [in_nix(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise NoValue


def plain_attributes(instance: Instance) -> dict[str, Any]:
    """Return the attributes of an instance that Nix has values for, by the names that they have there."""
    found = {}
    for name, value in instance.attributes.items():
        with suppress(NoValue):
            found[camel_case(name)] = in_nix(value)
    return found


def made_by(reader: Reader, names: Iterable[str], provide: Callable[[str], None]) -> Constructed:
    """Return the instances of some names in a document, in that order."""
    instances = reader.instances()
    names_of = {instance.pkg: name for name, instance in instances.items()}

    def locate(process: ManagedProcess, value_path: str) -> Location | None:
        return reader.locate(names_of[process], value_path) if process in names_of else None

    items = [instance if instance.attributes else instance.pkg for instance in map(instances.__getitem__, names)]
    return Constructed(items, provide, locate)
