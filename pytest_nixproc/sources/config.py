"""Models in JSON or YAML files, with the parameter names of upstream, the Nix process management framework.

A file holds either one process, its parameters at the top level, or a system::

    processes:
      webapp1:
        port: 5000
        pkg:
          instanceName: webapp1
          process: /usr/bin/webapp
          environment: {PORT: 5000, PID_FILE: "${tmpDir}/webapp1.pid"}
      proxy:
        port: 8080
        pkg: {instanceName: proxy, process: /usr/bin/proxy, dependencies: [webapp1]}

``${stateDir}``, ``${runtimeDir}`` and so on, ``${NAME}`` for ``--nixproc-param NAME=...``, ``${freePort.NAME}`` for a
leased port, and ``${ids.POOL.INSTANCE}`` for an id that an instance requires from a pool of ``idResources``, stand for
values that are only known when it is deployed; ``$${`` stands for ``${``. Other dollar signs are left alone. The schema
is ``docs/processes.schema.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any, Final

from pytest_nixproc.errors import Fault, ModelError, SourceError
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model import ready
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.names import camel_case, snake_case
from pytest_nixproc.model.process import ManagedProcess, read_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Source
from pytest_nixproc.values.location import Location

PLACEHOLDER: Final = re.compile(r"\$(\$\{|\{([A-Za-z_]\w*(?:\.[\w.-]+)?)\})")


def read_config(path: str, context: ModelContext) -> ProcessesModel:
    """Read a model file; the faults of all its processes are reported together."""
    document = substituted(parse(path), Placeholders(context))
    if not isinstance(document, Mapping):
        raise SourceError(f"{path} holds no mapping", remedy="see docs/processes.schema.json")
    if "processes" not in document:
        process = read_managed_process(document)
        return ProcessesModel({process.name or "process": Instance(process)}, origin=path)
    entries = document["processes"]
    if not isinstance(entries, Mapping) or document.keys() - {"processes", "idResources"}:
        raise SourceError(
            f"{path} is not of the form 'processes: {{NAME: ...}}'", remedy="see docs/processes.schema.json"
        )
    faults: list[Fault] = []
    instances = {str(name): read_instance(f"processes.{name}", entry, faults) for name, entry in entries.items()}
    try:
        pools = document.get("idResources")
        model = ProcessesModel(instances, origin=path, id_resources=pools, locate=Lines(path).locate)
    except ModelError as error:
        raise ModelError([*faults, *error.faults], origin=path) from error
    if faults:
        raise ModelError(faults, origin=path)
    return model


def read_instance(path: str, entry: object, faults: list[Fault]) -> Instance:
    """Read one instance: ``pkg`` is its process, all else its attributes."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("pkg"), Mapping):
        faults.append(Fault(f"{path}.pkg", "is missing or no mapping", "it holds the parameters of the process"))
        return Instance(read_managed_process({"name": "missing", "process": "/missing"}))
    attributes = {str(name): value for name, value in entry.items() if name != "pkg"}
    if "ready" in attributes:
        attributes["ready"] = ready.read_condition(attributes["ready"], f"{path}.ready", faults)
    return Instance(read_managed_process(entry["pkg"]), **attributes)


def parse(path: str) -> Any:
    """Parse a file by its suffix; a syntax error names the line."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read model file {path}: {error}", remedy="check its path") from error
    if path.endswith(".json"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise SourceError(f"{path}:{error.lineno}:{error.colno}: {error.msg}") from error
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SourceError(f"{path}: {error}") from error


class Lines:
    """The lines of values in a file, which is read once more when a line is first asked for."""

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def root(self) -> Any:
        """The parsed nodes of the file, None if it cannot be read again; JSON is parsed as YAML for its lines."""
        import yaml

        try:
            with open(self.path, encoding="utf-8") as file:
                text = file.read()
            # YAML refuses tabs between values, and JSON has them nowhere else.
            return yaml.compose(text.replace("\t", " ") if self.path.endswith(".json") else text, yaml.SafeLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return None

    def locate(self, instance: str, place: str) -> Location | None:
        """Return the line of a value of an instance; for one that is not in the file, that of the nearest one above."""
        node, line = self.root, None
        for part in ("processes", instance, *re.findall(r"[^.\[\]]+", place)):
            found = child_of(node, part)
            if found is None:
                break
            node, line = found
        return None if line is None else Location(self.path, line + 1)


def child_of(node: Any, part: str) -> tuple[Any, int] | None:
    """Return a child of a node, by its name in either spelling or its index, and the line where it begins."""
    if node is None or isinstance(node.value, str):
        return None
    for index, item in enumerate(node.value):
        if isinstance(item, tuple):
            key, value = item
            if key.value == part or snake_case(str(key.value)) == part:
                return value, key.start_mark.line
        elif str(index) == part:
            return item, item.start_mark.line
    return None


class Placeholders:
    """The values of the placeholders ``${...}``."""

    def __init__(self, context: ModelContext) -> None:
        self.context = context
        self.known: dict[str, object] = {
            **{camel_case(name): value for name, value in vars(context.state).items()},
            "processManager": context.process_manager,
            "system": context.system,
            **context.params,
        }

    def value(self, match: re.Match[str]) -> object:
        """Return the value of a placeholder; one that is not known stands for itself."""
        name = match[2]
        if name is None:
            return "${"
        kind, _, rest = name.partition(".")
        if kind == "freePort" and rest:
            return self.context.free_port(rest)
        if kind == "ids" and "." in rest:
            pool, _, instance = rest.partition(".")
            return self.context.ids.get(pool, {}).get(instance, match[0])
        return self.known.get(name, match[0])


def substituted(value: Any, placeholders: Placeholders) -> Any:
    """Return a document with its placeholders replaced, in values and not in names.

    A value that is nothing but a placeholder becomes what that stands for, a number say; else its text is put in.
    """
    if isinstance(value, Mapping):
        return {name: substituted(item, placeholders) for name, item in value.items()}
    if isinstance(value, list):
        return [substituted(item, placeholders) for item in value]
    if not isinstance(value, str):
        return value
    if whole := PLACEHOLDER.fullmatch(value):
        return placeholders.value(whole)
    return PLACEHOLDER.sub(lambda match: str(placeholders.value(match)), value)


PORT: Final = {"type": ["integer", "string"], "minimum": 1, "maximum": 65535, "pattern": r"^\$\{[^}]+\}$"}
NUMBER: Final = {"type": "integer"}
POOL: Final = {
    "type": "object",
    "required": ["min", "max"],
    "properties": {"min": NUMBER, "max": NUMBER, "step": NUMBER, "scope": {"type": "string"}},
    "additionalProperties": False,
}
INSTANCE: Final = {
    "type": "object",
    "required": ["pkg"],
    "properties": {
        "pkg": {"$ref": "#/$defs/process"},
        "port": PORT,
        "ports": {"type": "object", "additionalProperties": PORT},
    },
    "patternProperties": {"(_port|Port)$": PORT},
}
SYSTEM: Final = {
    "type": "object",
    "required": ["processes"],
    "properties": {
        "processes": {"type": "object", "additionalProperties": {"$ref": "#/$defs/instance"}},
        "idResources": {"type": "object", "additionalProperties": {"$ref": "#/$defs/pool"}},
    },
    "additionalProperties": False,
}


def process_schema() -> dict[str, Any]:
    """Return the JSON schema of one process, from the declarations of its parameters."""
    parameters = {
        camel_case(item.name): {**item.metadata["kind"].schema, "description": item.metadata["doc"]}
        for item in fields(ManagedProcess)
        if item.metadata
    }
    has_name = {"anyOf": [{"required": ["name"]}, {"required": ["instanceName"]}]}
    has_program = {"anyOf": [{"required": [name]} for name in ("process", "foregroundProcess", "daemon")]}
    return {
        "type": "object",
        "properties": parameters,
        "additionalProperties": False,
        "allOf": [has_name, has_program],
    }


def schema() -> dict[str, Any]:
    """Return the JSON schema of configuration files."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Processes model of pytest-nixproc",
        "anyOf": [SYSTEM, {"$ref": "#/$defs/process"}],
        "$defs": {"process": process_schema(), "instance": INSTANCE, "pool": POOL},
    }


@hookimpl
def nixproc_sources() -> list[Source]:
    """Return the reader of models in JSON and YAML files, for the registry."""
    return [Source("config", (".json", ".yaml", ".yml"), read_config)]
