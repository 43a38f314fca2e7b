"""What is told apart in the values of a process: ports, paths, names and accounts, wherever they stand."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pytest_nixproc.model.credentials import Credentials
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.state import StateDirs

Kind = Literal["name", "port", "path", "account"]
Read = Callable[[str], str | None]
"""Returns the text of a file; None when there is none, or no text in it."""

SOFTWARE: Final = ("process", "foreground_process", "daemon", "path", "description", "dependencies", "umask", "nice")
"""Parameters that name programs or are for people: instances may have them in common."""

SHELL: Final = ("pkg.initialize", "pkg.post_install")
DEPTH: Final = 4
"""How many configuration files may lead to each other."""

CONFIGURATION: Final = (
    *(".conf", ".cfg", ".cnf", ".ini", ".json", ".yaml", ".yml", ".toml", ".xml", ".properties", ".env", ".config"),
)
OPTION: Final = re.compile(r"--?(?:c|f|settings|conf\w*|config[\w-]*|[\w-]*-file)")
WORD_PATH: Final = re.compile(r"(?<![\w./~-])/[^\s'\"`;,|&<>(){}\[\]:=]+")
STATE_OF_THE_SYSTEM: Final = ("/var/", "/run/", "/tmp/")  # noqa: S108 - looked for in models, to be reported
COMMENT: Final = re.compile(r"^\s*(?:#|;|//).*$", re.MULTILINE)

NUMBER: Final = r"(?<![\w.])(\d{1,5})(?![\w.]*\d)"
HOST: Final = r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[\da-fA-F:]*\]|(?<![\w*])\*)"
AFTER_HOST: Final = re.compile(rf"{HOST}:(\d{{1,5}})\b")
PORT_WORD: Final = r"(?:(?:\b|_)(?:port|PORT|Port|listen|LISTEN|Listen)|[a-z]Port)\b"
AFTER_WORD: Final = re.compile(rf"{PORT_WORD}[\"']?\s*[=:\s]\s*[\"']?(?:{HOST}:)?(\d{{1,5}})\b")
PORT_OPTION: Final = re.compile(r"-p|-{1,2}[\w.-]*(?:port|listen|bind)[\w.-]*", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Resource:
    """Something that one instance can have for itself."""

    kind: Kind
    value: str


def places_of(instance: Instance) -> dict[str, str]:
    """Return all values of an instance as text, by their places; names of accounts are values, not places."""
    process = {name: getattr(instance.pkg, name) for name in ManagedProcess.PARAMETERS}
    return dict(walk("pkg", process)) | dict(walk("", instance.attributes))


def walk(place: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the values within a value, with their places."""
    if isinstance(value, Credentials):
        for kind, accounts in vars(value).items():
            for number, (name, account) in enumerate(accounts.items()):
                yield f"{place}.{kind}[{number}]", name
                yield from walk(f"{place}.{kind}[{number}]", vars(account))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from walk(f"{place}.{name}".lstrip("."), item)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from walk(f"{place}[{number}]", item)
    elif value is not None:
        yield place, text_of(value)


def text_of(value: object) -> str:
    """Return a single value as text; functions are told apart by what they were made with."""
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


def with_files(places: Mapping[str, str], read: Read) -> dict[str, str]:
    """Return places together with those of the configuration files that they refer to, and those that these do."""
    found = dict(places)
    new = dict(places)
    for _ in range(DEPTH):
        new = {
            f"{place} > file {number}": COMMENT.sub("", text)
            for place, value in new.items()
            for number, path in enumerate(configuration_in(place, value, found), 1)
            if (text := read(path)) is not None
        }
        found |= new
    return found


def configuration_in(place: str, value: str, places: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths in a value that look like configuration files, by their names or the option before them."""
    if is_software(place):
        return
    whole = [value] if value.startswith("/") and "\n" not in value else []
    after_option = OPTION.fullmatch(before(place, places))
    for path in dict.fromkeys([*whole, *WORD_PATH.findall(value)]):
        if path.endswith(CONFIGURATION) or (after_option and path == value):
            yield path


def is_software(place: str) -> bool:
    """Tell whether instances may have what stands at a place in common."""
    first = place.removeprefix("pkg.")
    return place.startswith("pkg.") and re.split(r"[.\[]", first, maxsplit=1)[0] in SOFTWARE


def before(place: str, places: Mapping[str, str]) -> str:
    """Return the argument before another one; empty for the first, and for what is no argument."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", place)
    return places.get(f"{match[1]}[{int(match[2]) - 1}]", "") if match else ""


class Recogniser:
    """Recognises resources in places; ``defaults`` are numbers that are ports wherever they stand."""

    def __init__(self, state: StateDirs, defaults: frozenset[str], is_software: Callable[[str], bool]) -> None:
        self.state = state
        self.defaults = defaults
        self.is_software = is_software

    def resources(self, place: str, places: Mapping[str, str]) -> set[Resource]:
        """Return the resources that a place names."""
        value = places[place]
        if place in ("pkg.name", "pkg.instance_name"):
            return {Resource("name", value)}
        if is_software(place):
            return set()
        if place == "pkg.user" or re.fullmatch(r"pkg\.credentials\.\w+\[\d+\](\.[ug]id)?", place):
            return {Resource("account", f"{place.rpartition('.')[2]} {value}" if place.endswith("id") else value)}
        if place.startswith("pkg.credentials") and not place.endswith(".home_dir"):
            return set()
        ports = {Resource("port", port) for port in self.ports(place, value, before(place, places))}
        return ports | {Resource("path", path) for path in self.paths(place, value)}

    def ports(self, place: str, value: str, option: str) -> Iterator[str]:
        """Yield the TCP ports in a value."""
        name = re.sub(r"\[\d+\]$", "", place.rpartition(".")[2])
        is_own = re.search(rf"{PORT_WORD}|(?i:port)s?$", name) or PORT_OPTION.fullmatch(option)
        if value.isdecimal():
            found = [value] if is_own or value in self.defaults else []
        else:
            found = [*AFTER_HOST.findall(value), *AFTER_WORD.findall(value)]
            found += [number for number in re.findall(NUMBER, value) if number in self.defaults]
        yield from (port for port in found if 0 < int(port) < 65536)

    def paths(self, place: str, value: str) -> Iterator[str]:
        """Yield the paths in a value at which an instance may keep something of its own."""
        if value.startswith("/") and "\n" not in value and ">" not in place:
            candidates = [value]
        else:
            candidates = list(self._paths_within(value))
        for candidate in candidates:
            path = os.path.normpath(candidate)
            if path not in self.state.all() and self._is_state(place, path):
                yield path

    def _paths_within(self, text: str) -> Iterator[str]:
        for match in re.finditer(rf"{re.escape(self.state.state_dir)}/|(?<![\w./~-])/(?:var|run|tmp)/", text):
            quote = text[match.start() - 1 : match.start()]
            end = re.escape(quote) if quote in ("'", '"') else r"\s'\"`;,|&<>(){}\[\]"
            rest = re.match(rf"[^{end}\n]*", text[match.end() :])
            yield match[0] + (rest[0] if rest else "")

    def _is_state(self, place: str, path: str) -> bool:
        if self.state.contains(path):
            return True
        return place != "pkg.directory" and path.startswith(STATE_OF_THE_SYSTEM) and not self.is_software(path)


def numbers_in(value: Any) -> Iterator[str]:
    """Yield the numbers and texts that a value is or holds, as text: what is given to all instances alike."""
    if isinstance(value, Instance):
        yield from places_of(value).values()
    elif isinstance(value, ManagedProcess):
        yield from places_of(Instance(value)).values()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from numbers_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from numbers_in(item)
    elif value is not None:
        yield text_of(value)
