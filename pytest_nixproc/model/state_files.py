"""The reading of the directories and files that a process has in its state: by their paths, or in a list."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from pytest_nixproc.errors import Fault
from pytest_nixproc.model import value_types
from pytest_nixproc.model.names import did_you_mean
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.state_files import StateDirectory, StateFile

Entry = TypeVar("Entry", StateDirectory, StateFile)


def read_mode(value: object, path: str, faults: list[Fault]) -> int | None:
    """Read a mode as octal text; a number would be ambiguous (YAML and Python read 750 differently)."""
    if isinstance(value, str) and re.fullmatch("[0-7]{3,4}", value):
        return int(value, 8)
    faults.append(Fault(path, f"is {value!r}, which is no mode", "write octal digits in quotes: '0750'"))
    return None


def read_secret(value: object, path: str, faults: list[Fault]) -> bool:
    """Read whether a text is secret."""
    return value_types.typed(value, bool, "a truth value", path, faults)


MODE: Final = ValueType("octal text", read_mode, {"type": "string", "pattern": "^[0-7]{3,4}$"})
SECRET: Final = ValueType("truth value", read_secret, {"type": "boolean"})
OWNERSHIP: Final[Mapping[str, ValueType]] = {"mode": MODE, "user": value_types.NAME, "group": value_types.NAME}
OF_FILE: Final[Mapping[str, ValueType]] = {"text": value_types.TEXT, **OWNERSHIP, "secret": SECRET}


def read_properties(
    value: object, known: Mapping[str, ValueType], path: str, faults: list[Fault]
) -> dict[str, Any] | None:
    """Read the properties of one entry, without those that are null; None if it is no mapping, which is a fault."""
    if not isinstance(value, Mapping):
        faults.append(Fault(path, f"is {value!r}, which is no mapping of {', '.join(known)}"))
        return None
    properties: dict[str, Any] = {}
    for name, item in value.items():
        if name not in known:
            faults.append(Fault(f"{path}.{name}", "is no property of it", did_you_mean(str(name), known)))
        elif item is not None and (read := known[name].read(item, f"{path}.{name}", faults)) is not None:
            properties[name] = read
    return properties


def entries_of(
    make: Callable[[str, object, str, list[Fault]], Entry | None],
) -> Callable[[object, str, list[Fault]], tuple[Entry, ...]]:
    """Return the reader of entries, which come out in the order of their paths."""

    def read(value: object, path: str, faults: list[Fault]) -> tuple[Entry, ...]:
        found: dict[str, Entry] = {}
        for place, item, told in listed(value, path, faults):
            if place in found:
                faults.append(Fault(told, f"is there twice, as {place}"))
            elif (entry := make(place, item, told, faults)) is not None:
                found[place] = entry
        return tuple(found[place] for place in sorted(found))

    return read


def listed(value: object, path: str, faults: list[Fault]) -> Iterator[tuple[str, object, str]]:
    """Yield each entry of a mapping by paths, or of a list: its path, its properties, and where it stands."""
    if isinstance(value, Mapping):
        items = [(key, item, f"{path}.{key}") for key, item in value.items()]
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        items = [(*path_and_rest(item), f"{path}[{number}]") for number, item in enumerate(value)]
    else:
        faults.append(Fault(path, f"is {value!r}, which is neither a mapping of paths nor a list"))
        return
    for key, item, told in items:
        if place := value_types.read_path(key, told, faults):
            yield os.path.normpath(place), item, told
        elif isinstance(key, str):
            faults.append(Fault(told, "has no path"))


def path_and_rest(item: object) -> tuple[object, object]:
    """Return the path of an item of a list, and its other properties: it may be the path alone."""
    if not isinstance(item, Mapping):
        return item, None
    return item.get("path", ""), {name: value for name, value in item.items() if name != "path"}


def make_directory(place: str, value: object, path: str, faults: list[Fault]) -> StateDirectory | None:
    """Make the entry of a directory of its properties, which may be none."""
    properties = read_properties({} if value is None else value, OWNERSHIP, path, faults)
    return None if properties is None else StateDirectory(path=place, **properties)


def make_file(place: str, value: object, path: str, faults: list[Fault]) -> StateFile | None:
    """Make the entry of a file of its text, or of its properties."""
    properties = read_properties({"text": value} if isinstance(value, str) else value, OF_FILE, path, faults)
    if properties is not None and "text" not in properties:
        faults.append(Fault(path, "has no text", "an empty file has the text ''"))
    return None if properties is None else StateFile(path=place, **{"text": "", **properties})


def schema_of(known: Mapping[str, ValueType], *others: Mapping[str, object]) -> dict[str, object]:
    """Return the JSON schema of a list of entries with their paths; ``others`` stand for the whole of one."""
    properties = {"path": dict(value_types.PATH.schema)} | {name: dict(kind.schema) for name, kind in known.items()}
    required = ["path", *(["text"] if "text" in known else [])]
    entry = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "array", "items": {"anyOf": [entry, *map(dict, others)]} if others else entry}


DIRECTORIES: Final = ValueType(
    "directories by path", entries_of(make_directory), schema_of(OWNERSHIP, value_types.PATH.schema)
)
FILES: Final = ValueType("files by path", entries_of(make_file), schema_of(OF_FILE))
