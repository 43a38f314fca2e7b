"""Kinds of parameter: each reads a value that a user wrote, or adds a fault with its path.

A reader never raises: it returns a harmless stand-in, so that all the faults of an input come out together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, Final, TypeVar

from pytest_nixproc.errors import Fault
from pytest_nixproc.model.names import camel_case, did_you_mean, snake_case
from pytest_nixproc.values.value import Value

ASKING_SIGNALS: Final = ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH")
"""The signals by which programs are asked for something, and which foreground proxies pass on."""

Read = Callable[[object, str, list[Fault]], object]
Wanted = TypeVar("Wanted")


class ValueType(Value):
    """One kind of value that a user can write."""

    title: str
    """Name of the kind, for users."""

    read: Read
    """Returns the value that a user wrote in its final form, or adds a fault."""

    schema: Mapping[str, object] = field(default_factory=dict)


def typed(value: object, kind: type[Wanted], title: str, path: str, faults: list[Fault]) -> Wanted:
    """Return ``value`` when it is a ``kind``, else an empty one and a fault."""
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    faults.append(Fault(path, f"is {value!r}, which is not {title}"))
    return kind()


def read_mapping(value: object, path: str, faults: list[Fault]) -> Mapping[Any, Any]:
    """Return ``value`` when it is a mapping of any kind, else an empty one and a fault."""
    return value if isinstance(value, Mapping) else typed(value, dict, "a mapping", path, faults)


def read_text(value: object, path: str, faults: list[Fault]) -> str:
    """Read text; NUL is a fault, as it cannot be passed to a process (execve(2) ends strings there)."""
    text = typed(value, str, "a string", path, faults)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        faults.append(Fault(path, f"is {text!r}, which cannot be encoded"))
        return ""
    if "\0" in text:
        faults.append(Fault(path, "holds a NUL character, which no process can receive"))
        return ""
    return text


def read_scalar(value: object, path: str, faults: list[Fault]) -> str:
    """Read text, a number, a path or a truth value as text, like Nix's ``toString``: true is ``1``, false is empty."""
    if isinstance(value, bool):
        return "1" if value else ""
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, os.PathLike):
        return read_text(os.fspath(value), path, faults)
    if isinstance(value, str):
        return read_text(value, path, faults)
    faults.append(Fault(path, f"is {value!r}, which is neither a string, a number, a path nor a truth value"))
    return ""


def read_path(value: object, path: str, faults: list[Fault]) -> str:
    """Read an absolute path; a relative one is a fault, as it would depend on the directory of the test run."""
    text = read_scalar(value, path, faults) if isinstance(value, os.PathLike) else read_text(value, path, faults)
    if text and not os.path.isabs(text):
        faults.append(Fault(path, f"is {text!r}, which is not an absolute path", "shutil.which() finds programs"))
    return text


def read_umask(value: object, path: str, faults: list[Fault]) -> str:
    """Read a umask as octal text; a number would be ambiguous (YAML and Python read 022 differently)."""
    if isinstance(value, str) and re.fullmatch("[0-7]{1,4}", value):
        return value
    faults.append(Fault(path, f"is {value!r}, which is no umask", "write octal digits in quotes: '0022'"))
    return ""


def read_nice(value: object, path: str, faults: list[Fault]) -> int | None:
    """Read a nice level, a number or its text; the range is that of setpriority(2)."""
    if isinstance(value, int | str) and re.fullmatch(r"[+-]?\d{1,2}", str(value)) and -20 <= int(value) <= 19:
        return int(value)
    faults.append(Fault(path, f"is {value!r}, which is no nice level", "use a whole number from -20 to 19"))
    return None


def read_signal(value: object, path: str, faults: list[Fault]) -> str | None:
    """Read the name of a signal, without ``SIG``; numbers are others on other systems."""
    name = str(value).upper().removeprefix("SIG")
    if isinstance(value, str) and name in ASKING_SIGNALS:
        return name
    faults.append(Fault(path, f"is {value!r}, which asks no program for anything", f"use {', '.join(ASKING_SIGNALS)}"))
    return None


def read_name(value: object, path: str, faults: list[Fault]) -> str:
    """Read a name that can stand for a file: not empty, no slash, no control character, no leading dot or dash."""
    name = read_text(value, path, faults)
    if isinstance(value, str) and not re.fullmatch(r"[^/\x00-\x1f\x7f.-][^/\x00-\x1f\x7f]*", name):
        faults.append(Fault(path, f"is {value!r}, which cannot name a file", "use letters, digits, '-', '_' and '.'"))
    return name


def sequence_of(kind: ValueType) -> ValueType:
    """Return the kind of a list whose items are of ``kind``; a single string is not taken for a list."""

    def read(value: object, path: str, faults: list[Fault]) -> tuple[object, ...]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            faults.append(Fault(path, f"is {value!r}, which is not a list"))
            return ()
        return tuple(kind.read(item, f"{path}[{index}]", faults) for index, item in enumerate(value))

    return ValueType(f"list of {kind.title}", read, {"type": "array", "items": dict(kind.schema)})


ENVIRONMENT_NAME: Final = "[A-Za-z_][A-Za-z0-9_]*"
SHELL_OWN_NAMES: Final = frozenset(
    {"_", "IFS", "PWD", "OLDPWD", "SHLVL", "UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS"}
    | {"OPTIND", "LINENO", "RANDOM", "SRANDOM", "SECONDS", "GROUPS", "DIRSTACK", "FUNCNAME", "HISTCMD"}
    | {"BASHPID", "BASH_VERSINFO", "BASH_COMMAND", "BASH_SUBSHELL", "BASH_ARGV0", "EPOCHSECONDS", "EPOCHREALTIME"}
)
"""Some are read-only, or have values of their own, in dash or in bash, which is ``/bin/sh`` in places."""


def read_environment(value: object, path: str, faults: list[Fault]) -> dict[str, str]:
    """Read environment variables; names are those that every shell can export (POSIX.1 chapter 8.1)."""
    environment = {}
    for name, item in read_mapping(value, path, faults).items():
        if not isinstance(name, str) or not re.fullmatch(ENVIRONMENT_NAME, name):
            faults.append(Fault(path, f"has the name {name!r}", "use letters, digits and '_', no digit first"))
        elif name in SHELL_OWN_NAMES:
            faults.append(Fault(f"{path}.{name}", "is a variable that shells set for themselves"))
        else:
            environment[name] = read_scalar(item, f"{path}.{name}", faults)
    return environment


LIMITS: Final = ("open_files", "processes", "core_size", "stack_size", "locked_memory", "address_space")
"""The resources that can be limited (setrlimit(2)); sizes are in bytes."""

UNLIMITED: Final = "unlimited"


def read_limits(value: object, path: str, faults: list[Fault]) -> dict[str, int | None]:
    """Read limits of resources in either spelling, which count for both the soft and the hard limit; None for none."""
    limits: dict[str, int | None] = {}
    for spelled, item in read_mapping(value, path, faults).items():
        name = snake_case(str(spelled))
        if name not in LIMITS:
            known = did_you_mean(name, LIMITS) or f"known are {', '.join(LIMITS)}"
            faults.append(Fault(f"{path}.{spelled}", "is no limit", known))
        elif item == UNLIMITED:
            limits[name] = None
        elif isinstance(item, int) and not isinstance(item, bool) and item >= 0:
            limits[name] = item
        else:
            remedy = f"use a whole number, or {UNLIMITED!r}"
            faults.append(Fault(f"{path}.{spelled}", f"is {item!r}, which is no limit", remedy))
    return limits


def read_overrides(value: object, path: str, faults: list[Fault]) -> dict[str, object]:
    """Read changes to the generated parameters, by manager: a mapping, or (Python) a function."""
    overrides = {}
    for manager, change in read_mapping(value, path, faults).items():
        if isinstance(change, Mapping) or callable(change):
            overrides[str(manager)] = change
        else:
            faults.append(Fault(f"{path}.{manager}", f"is {change!r}, neither a mapping nor a function"))
    return overrides


def read_dependency(value: object, path: str, faults: list[Fault]) -> object:
    """Read a dependency: a process, an instance of one, or the name of one in the model."""
    dependency = getattr(value, "pkg", value)
    if isinstance(dependency, str):
        return dependency
    if hasattr(dependency, "faults"):
        return dependency
    faults.append(Fault(path, f"is {value!r}, which is neither a process, an instance nor a name"))
    return ""


TEXT: Final = ValueType("text", read_text, {"type": "string"})
NAME: Final = ValueType("name", read_name, {"type": "string", "pattern": "^[^/.-][^/]*$"})
PATH: Final = ValueType("absolute path", read_path, {"type": "string", "pattern": "^(/|\\$\\{)"})
SCALAR: Final = ValueType("text or number", read_scalar, {"type": ["string", "number", "boolean"]})
UMASK: Final = ValueType("octal text", read_umask, {"type": "string", "pattern": "^[0-7]{1,4}$"})
NICE: Final = ValueType("number", read_nice, {"type": ["integer", "string"], "minimum": -20, "maximum": 19})
SIGNAL: Final = ValueType(
    "name of a signal", read_signal, {"enum": [f"{sig}{name}" for name in ASKING_SIGNALS for sig in ("", "SIG")]}
)
ENVIRONMENT: Final = ValueType(
    "mapping of text",
    read_environment,
    {"type": "object", "propertyNames": {"pattern": f"^{ENVIRONMENT_NAME}$"}, "additionalProperties": SCALAR.schema},
)
LIMIT_SCHEMA: Final = {"anyOf": [{"type": "integer", "minimum": 0}, {"const": UNLIMITED}]}
RESOURCE_LIMITS: Final = ValueType(
    "limits by resource",
    read_limits,
    {
        "type": "object",
        "properties": {camel_case(name): LIMIT_SCHEMA for name in LIMITS},
        "additionalProperties": False,
    },
)
OVERRIDES: Final = ValueType(
    "mapping by manager",
    read_overrides,
    {"type": "object", "additionalProperties": {"type": "object"}},
)
DEPENDENCIES: Final = sequence_of(ValueType("process", read_dependency, {"type": "string"}))
SCALARS: Final = sequence_of(SCALAR)
PATHS: Final = sequence_of(PATH)
