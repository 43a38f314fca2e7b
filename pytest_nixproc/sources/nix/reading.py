"""The reading of an evaluated expression into a processes model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pytest_nixproc.errors import Fault, ModelError
from pytest_nixproc.model import ready
from pytest_nixproc.model.ids import Assignments, Pool
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.names import camel_case
from pytest_nixproc.model.process import CamelCaseFunction, ManagedProcess, read_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.location import Location
from pytest_nixproc.values.value import Value

ARGUMENT_LISTS: Final = (
    *("args", "foregroundProcessExtraArgs", "foregroundProcessArgs", "daemonExtraArgs", "daemonArgs"),
)
HASH_LENGTH: Final = 33
"""Length of the part before the name of a file in the store: the hash, and a dash."""

PROBLEMS: Final = {
    "no set": ("", "is {}, which is no instance", "write { pkg = createManagedProcess { ... }; }"),
    "no pkg": ("", "has no pkg", "write { pkg = createManagedProcess { ... }; }"),
    "no process": (".pkg", "is {}, which is no managed process", "use createManagedProcess of <pytest-nixproc>"),
    "no parameters": (".pkg", "is made of {}", "write createManagedProcess { instanceName = ...; process = ...; }"),
}
"""Problems with the form of an instance: the path in it, the text, and the remedy."""

KINDS: Final = {"int": "an integer", "set": "a set of something else", "lambda": "a function", "null": "null"}

Apply = Callable[[str, list[str], Mapping[str, Any]], Mapping[str, Any]]
"""Applies a function override: the instance, the names that lead to the function, and the parameters it gets."""


class Reader(Value):
    """A reader of the instances of one document; the faults of all of them are reported together."""

    document: Mapping[str, Any]
    origin: str
    apply: Apply

    def model(self, pools: Mapping[str, Pool], recorded: Assignments, provide: Callable[[str], None]) -> ProcessesModel:
        """Return the model; raises :class:`~pytest_nixproc.errors.ModelError`."""
        instances, faults = self._read()
        try:
            model = ProcessesModel(
                instances,
                origin=self.origin,
                id_resources=pools,
                recorded_ids=recorded,
                provide=provide,
                locate=self.locate,
            )
        except ModelError as error:
            faults += error.faults
        self._refuse(faults)
        return model

    def instances(self) -> dict[str, Instance]:
        """Return the instances by name; raises :class:`~pytest_nixproc.errors.ModelError` for faults in any of them."""
        instances, faults = self._read()
        self._refuse(faults)
        return instances

    def _read(self) -> tuple[dict[str, Instance], list[Fault]]:
        """Return the instances of a sound form, and all faults."""
        faults = [fault for name, entry in self.document.items() for fault in self._problems(name, entry)]
        sound = {name: entry for name, entry in self.document.items() if "problem" not in entry}
        return {name: self._instance(name, entry, faults) for name, entry in sound.items()}, faults

    def _refuse(self, faults: list[Fault]) -> None:
        if faults:
            raise ModelError([self._placed(fault) for fault in faults], origin=self.origin)

    def _problems(self, name: str, entry: Mapping[str, Any]) -> list[Fault]:
        """Return the problems with the form of an instance."""
        if "problem" not in entry:
            return []
        path, problem, remedy = PROBLEMS[entry["problem"]]
        kind = KINDS.get(entry.get("kind", ""), f"a {entry.get('kind')}")
        return [Fault(f"processes.{name}{path}", problem.format(kind), remedy)]

    def _instance(self, name: str, entry: Mapping[str, Any], faults: list[Fault]) -> Instance:
        attributes = {key: value_of(item) for key, item in entry["attributes"].items() if not is_function(item)}
        if "ready" in attributes:
            attributes["ready"] = ready.read_condition(attributes["ready"], f"processes.{name}.ready", faults)
        return Instance(self._process(name, entry), **attributes)

    def _process(self, name: str, entry: Mapping[str, Any]) -> ManagedProcess:
        given = entry["parameters"] if "parameters" in entry else json.loads(entry["configuration"])
        parameters = {key: as_text(key, value_of(value)) for key, value in given.items() if value is not None}
        if isinstance(given.get("dependencies"), list):
            parameters["dependencies"] = [self._dependency(item) for item in given["dependencies"]]
        if isinstance(given.get("overrides"), dict):
            parameters["overrides"] = self._override(name, [], given["overrides"])
        return read_managed_process(parameters)

    def _dependency(self, value: Any) -> Any:
        """Return the instance that a dependency means: our library names its process, upstream its package."""
        if isinstance(value, dict) and "nixproc:process" in value:
            wanted = value["nixproc:process"]
            for key, entry in self.document.items():
                parameters = entry.get("parameters", {})
                if wanted == (parameters.get("name") or parameters.get("instanceName")):
                    return key
            return wanted
        if isinstance(value, str):
            found = (key for key, entry in self.document.items() if entry.get("path") == value)
            return next(found, os.path.basename(value)[HASH_LENGTH:])
        return value

    def _override(self, instance: str, path: list[str], value: Any) -> Any:
        """Return overrides with functions that can be called, each of which has Nix evaluate it."""
        if is_function(value):
            return CamelCaseFunction(lambda parameters: self.apply(instance, path, parameters))
        if isinstance(value, dict):
            return {name: self._override(instance, [*path, name], item) for name, item in value.items()}
        return value

    def locate(self, instance: str, place: str) -> Location | None:
        """Return where a value of an instance was set: ``port``, or a parameter of its process as ``pkg.umask``."""
        found = self._position(instance, place.removeprefix("pkg."), is_parameter=place.startswith("pkg."))
        return Location(found["file"], found["line"]) if found else None

    def _position(self, instance: str, place: str, *, is_parameter: bool) -> dict[str, Any] | None:
        """Return the position of a parameter or attribute, or else that of the instance."""
        entry = self.document.get(instance, {})
        positions = entry.get("positions" if is_parameter else "attributePositions", {})
        found: dict[str, Any] | None = positions.get(first_name(place)) or entry.get("position")
        return found

    def _placed(self, fault: Fault) -> Fault:
        """Return a fault with the place in the user's file where the value, or else its instance, was set."""
        _, _, rest = fault.path.partition(".")
        instance = max((key for key in self.document if rest == key or rest.startswith(f"{key}.")), key=len, default="")
        place = rest[len(instance) + 1 :]
        is_attribute = first_name(place) in self.document.get(instance, {}).get("attributes", {})
        found = self._position(instance, place, is_parameter=not is_attribute)
        if not found:
            return fault
        return Fault(f"{found['file']}:{found['line']}:{found['column']}: {fault.path}", fault.problem, fault.remedy)


def first_name(place: str) -> str:
    """Return the name with which a place begins, as Nix spells it: ``pidFile`` for ``pid_file[0]``."""
    return camel_case(re.split(r"[.\[]", place, maxsplit=1)[0])


def is_function(value: object) -> bool:
    """Tell whether a value stands for a function."""
    return isinstance(value, dict) and value.get("nixproc:function") is True


class Function:
    """A stand-in for a Nix function in a parameter that cannot be a function, to be shown in the error message."""

    def __repr__(self) -> str:
        return "a function"


def value_of(value: Any) -> Any:
    """Return a value with its functions replaced by stand-ins."""
    if is_function(value):
        return Function()
    if isinstance(value, dict):
        return {name: value_of(item) for name, item in value.items()}
    return [value_of(item) for item in value] if isinstance(value, list) else value


def as_text(parameter: str, value: Any) -> Any:
    """Return a parameter's value; arguments and environment variables become text as Nix's ``toString`` makes it."""
    if parameter == "environment" and isinstance(value, dict):
        return {name: to_string(item) for name, item in value.items()}
    if parameter in ARGUMENT_LISTS and isinstance(value, list):
        return [to_string(item) for item in value]
    return value


def to_string(value: Any) -> Any:
    """Return a value as Nix's ``toString`` writes it; integers, and sets, which are refused later, are left."""
    if value is None or value is False:
        return ""
    if isinstance(value, list):
        return " ".join(str(to_string(item)) for item in value)
    if isinstance(value, float):
        return f"{value:f}"
    return "1" if value is True else value
