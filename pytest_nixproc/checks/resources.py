"""Recognition of ports, paths, names and accounts in the values of a process, wherever they stand."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, Self

from pytest_nixproc.model.credentials import Credentials
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.recognition import (
    AFTER_HOST,
    AFTER_WORD,
    CONFIGURATION,
    NUMBER,
    OPTION,
    PORT_OPTION,
    PORT_WORD,
    STATE_ROOTS,
    WORD_PATH,
)
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.state_files import StateEntry
from pytest_nixproc.values.value import Value

Kind = Literal["name", "port", "path", "account"]
Read = Callable[[str], str | None]
"""Returns the text of a file; None when there is none, or no text in it."""

SHAREABLE: Final = ("process", "foreground_process", "daemon", "path", "description", "dependencies", "umask", "nice")
"""Parameters whose values instances may have in common: they name programs, or are no resource."""

SHELL: Final = ("pkg.initialize", "pkg.post_install")
DEPTH: Final = 4
"""How many configuration files may lead to each other."""

COMMENT: Final = re.compile(r"^\s*(?:#|;|//).*$", re.MULTILINE)


class Resource(Value):
    """A name, port, path or account that one instance can have for itself."""

    kind: Kind
    value: str

    def __lt__(self, other: Self) -> bool:
        return (self.kind, self.value) < (other.kind, other.value)


def texts_of(instance: Instance) -> dict[str, str]:
    """Return all values of an instance as text, by their paths; names of accounts count as values."""
    process = {name: getattr(instance.pkg, name) for name in ManagedProcess.PARAMETERS}
    return dict(walk("pkg", process)) | dict(walk("", instance.attributes))


def walk(value_path: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the values within a value as text, each with its path."""
    if isinstance(value, Credentials):
        for kind, accounts in vars(value).items():
            for number, (name, account) in enumerate(accounts.items()):
                yield f"{value_path}.{kind}[{number}]", name
                yield from walk(f"{value_path}.{kind}[{number}]", vars(account))
    elif isinstance(value, StateEntry):
        told = {name: item for name, item in vars(value).items() if isinstance(item, str)}
        yield from walk(value_path, told | ({"text": COMMENT.sub("", told["text"])} if "text" in told else {}))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from walk(f"{value_path}.{name}".lstrip("."), item)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from walk(f"{value_path}[{number}]", item)
    elif value is not None:
        yield value_path, text_of(value)


def text_of(value: object) -> str:
    """Return a single value as text; for a function, its place in the code and the values in its closure."""
    if isinstance(value, str | int | float | os.PathLike):
        return str(value)
    if isinstance(value, Instance):
        return value.pkg.name
    if isinstance(value, ManagedProcess):
        return value.name
    if code := getattr(value, "__code__", None):
        cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        return f"{code.co_filename}:{code.co_firstlineno} {[text_of(cell) for cell in cells]}"
    return repr(value) if "object at 0x" not in repr(value) else type(value).__name__


def with_files(values: Mapping[str, str], read: Read) -> dict[str, str]:
    """Return values with the texts of the configuration files that they refer to, directly or through others."""
    found = dict(values)
    new = dict(values)
    for _ in range(DEPTH):
        new = {
            f"{value_path} > file {number}": COMMENT.sub("", text)
            for value_path, value in new.items()
            for number, path in enumerate(configuration_in(value_path, value, found), 1)
            if (text := read(path)) is not None
        }
        found |= new
    return found


def configuration_in(value_path: str, value: str, values: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths in a value that look like configuration files, by their names or the option before them."""
    if may_be_shared(value_path):
        return
    whole = [value] if value.startswith("/") and "\n" not in value else []
    after_option = OPTION.fullmatch(before(value_path, values))
    for path in dict.fromkeys([*whole, *WORD_PATH.findall(value)]):
        if path.endswith(CONFIGURATION) or (after_option and path == value):
            yield path


def may_be_shared(value_path: str) -> bool:
    """Tell whether a value belongs to a parameter that instances may have in common (:data:`SHAREABLE`)."""
    first = value_path.removeprefix("pkg.")
    return value_path.startswith("pkg.") and re.split(r"[.\[]", first, maxsplit=1)[0] in SHAREABLE


def before(value_path: str, values: Mapping[str, str]) -> str:
    """Return the argument before another one; empty for the first, and for a value that is no argument."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", value_path)
    return values.get(f"{match[1]}[{int(match[2]) - 1}]", "") if match else ""


class Recogniser:
    """A recogniser of resources in values; each number in ``defaults`` counts as a port wherever it occurs."""

    def __init__(self, state: StateDirs, defaults: frozenset[str], is_software: Callable[[str], bool]) -> None:
        self.state = state
        self.defaults = defaults
        self.is_software = is_software

    def resources(self, value_path: str, values: Mapping[str, str]) -> set[Resource]:
        """Return the resources that a value names."""
        value = values[value_path]
        if value_path in ("pkg.name", "pkg.instance_name"):
            return {Resource("name", value)}
        if may_be_shared(value_path):
            return set()
        if value_path == "pkg.user" or re.fullmatch(r"pkg\.credentials\.\w+\[\d+\](\.[ug]id)?", value_path):
            return {
                Resource("account", f"{value_path.rpartition('.')[2]} {value}" if value_path.endswith("id") else value)
            }
        if value_path.startswith("pkg.credentials") and not value_path.endswith(".home_dir"):
            return set()
        ports = {Resource("port", port) for port in self.ports(value_path, value, before(value_path, values))}
        return ports | {Resource("path", path) for path in self.paths(value_path, value)}

    def ports(self, value_path: str, value: str, option: str) -> Iterator[str]:
        """Yield the TCP ports in a value."""
        name = re.sub(r"\[\d+\]$", "", value_path.rpartition(".")[2])
        is_own = re.search(rf"{PORT_WORD}|(?i:port)s?$", name) or PORT_OPTION.fullmatch(option)
        if value.isdecimal():
            found = [value] if is_own or value in self.defaults else []
        else:
            found = [*AFTER_HOST.findall(value), *AFTER_WORD.findall(value)]
            found += [number for number in re.findall(NUMBER, value) if number in self.defaults]
        yield from (port for port in found if 0 < int(port) < 65536)

    def paths(self, value_path: str, value: str) -> Iterator[str]:
        """Yield the paths in a value at which an instance may keep something of its own."""
        if value.startswith("/") and "\n" not in value and ">" not in value_path:
            candidates = [value]
        else:
            candidates = list(self._paths_within(value))
        for candidate in candidates:
            path = os.path.normpath(candidate)
            if path in self.state.all():
                continue
            is_elsewhere = value_path != "pkg.directory" and path.startswith(STATE_ROOTS)
            if self.state.contains(path) or (is_elsewhere and not self.is_software(path)):
                yield path

    def _paths_within(self, text: str) -> Iterator[str]:
        for match in re.finditer(rf"{re.escape(self.state.state_dir)}/|(?<![\w./~-])/(?:var|run|tmp)/", text):
            quote = text[match.start() - 1 : match.start()]
            end = re.escape(quote) if quote in ("'", '"') else r"\s'\"`;,|&<>(){}\[\]"
            rest = re.match(rf"[^{end}\n]*", text[match.end() :])
            yield match[0] + (rest[0] if rest else "")


def scalars_in(value: Any) -> Iterator[str]:
    """Yield a scalar as text, or every scalar inside an instance, a process, a mapping or a list."""
    if isinstance(value, Instance):
        yield from texts_of(value).values()
    elif isinstance(value, ManagedProcess):
        yield from texts_of(Instance(value)).values()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from scalars_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from scalars_in(item)
    elif value is not None:
        yield text_of(value)
