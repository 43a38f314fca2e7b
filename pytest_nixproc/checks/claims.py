"""What the instances of a model claim for themselves: ports, files, directories, sockets; found in one pass.

A claim is recognised by the name under which a value stands: an attribute ``data_dir``, a variable ``PID_FILE``, an
option ``--log-file``. Names that clients use for the resources of others, like ``DB_SOCKET``, are no claims.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, NamedTuple, Self

from pytest_nixproc.managers.api import Target
from pytest_nixproc.model.accounts import needed_accounts
from pytest_nixproc.model.instance import Endpoint, Instance
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel

Kind = Literal["pid file", "log file", "socket", "directory", "port", ""]

PARAMETERS: Final = (
    "args",
    "foreground_process_args",
    "foreground_process_extra_args",
    "daemon_args",
    "daemon_extra_args",
)
ENVIRONMENT: Final = "pkg.environment."

KINDS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    ("pid file", re.compile(r"(.*_)?pid_?file")),
    ("log file", re.compile(r"(.*_)?(log_?file|error_log|access_log)|log")),
    ("socket", re.compile(r"(listen_|unix_?)?socket(_file|_path)?|(.*_)socket_file")),
    ("directory", re.compile(r"(.*_)?(data|state|cache|spool|log|lib|work|run|runtime)_?dir(ectory)?|pgdata|dbpath")),
    ("port", re.compile(r"(listen_|bind_)?port")),
)
"""Which names claim what; as attributes, names that end in ``socket`` claim one too."""

FOR_ONE: Final = re.compile(r"(.*_)?data_?dir(ectory)?|pgdata|dbpath")
"""Directories that nobody can share, even where they are one of the state directories, which all others share."""

PID_PATH: Final = re.compile(r"(?<![\w./-])(?!//)/[^\s'\"`;,|&<>(){}\[\]:=]*\.pid(?![\w./-])")
"""A path within a text that is called like a PID file."""

LISTED: Final = re.compile("--?([A-Za-z][A-Za-z0-9_.-]*)(?:=(.*))?", re.DOTALL)


class Mention(NamedTuple):
    """A value that a program gets: its instance, its place in it, the plain name under which it stands, and itself."""

    instance: str
    place: str
    name: str
    value: str


class Claim(NamedTuple):
    """That an instance uses something: the instance, the place that says so, what stands there, and what it means.

    ``resource`` is what claims are compared by; ``is_told`` when it stands in arguments or environment, which may
    also hold what others have.
    """

    instance: str
    place: str
    value: Any
    resource: Any
    is_told: bool = False


class Told(NamedTuple):
    """A PID file that programs are told, and whether an option asks for it; else they may do without."""

    path: str
    claims: tuple[Claim, ...]
    is_asked_for: bool


@cache
def kind_of(name: str) -> Kind:
    """Return what a name claims; nothing for most."""
    return next((kind for kind, pattern in KINDS if pattern.fullmatch(name)), "")


@cache
def is_for_one(name: str) -> bool:
    """Tell whether a name speaks of a directory that nobody can share."""
    return FOR_ONE.fullmatch(name) is not None


def mentions(instance: str, process: ManagedProcess) -> Iterator[Mention]:
    """Yield what a process is told by arguments and environment; an option's name goes with its value."""
    for parameter in PARAMETERS:
        if args := getattr(process, parameter):
            yield from arguments(instance, f"pkg.{parameter}", args)
    for name, value in process.environment.items():
        yield Mention(instance, f"{ENVIRONMENT}{name}", name.lower(), value)


def arguments(instance: str, place: str, args: Iterable[str]) -> Iterator[Mention]:
    """Yield the arguments of a command: ``--name=value``, ``--name value``, and values without a name."""
    name = ""
    for index, value in enumerate(args):
        option = LISTED.fullmatch(value) if value.startswith("-") else None
        if option is None:
            yield Mention(instance, f"{place}[{index}]", name, value)
            name = ""
            continue
        name = option[1].replace("-", "_").lower()
        if option[2] is not None:
            yield Mention(instance, f"{place}[{index}]", name, option[2])
            name = ""


@dataclass
class Inventory:
    """All claims of a model, by what they claim; and what its instances are told."""

    endpoints: list[tuple[str, Endpoint]] = field(default_factory=list)
    pid_files: list[Claim] = field(default_factory=list)
    log_files: list[Claim] = field(default_factory=list)
    paths: list[Claim] = field(default_factory=list)
    """Sockets, directories and homes."""

    directories: set[str] = field(default_factory=set)
    """Those of the paths that are directories."""

    sockets: list[Claim] = field(default_factory=list)
    ports: list[Claim] = field(default_factory=list)
    """Ports that programs are told to listen on."""

    mentions: list[Mention] = field(default_factory=list)

    @classmethod
    def of(cls, model: ProcessesModel, target: Target) -> Self:
        """Go through a model once."""
        inventory = cls()
        shared = frozenset(target.state.all())
        for name, instance in model.items():
            inventory.add(name, instance, target, shared)
        return inventory

    def add(self, name: str, instance: Instance, target: Target, shared: frozenset[str]) -> None:
        """Take in one instance; ``shared`` are the directories that all may use."""
        process = instance.pkg
        self.endpoints += [(name, endpoint) for endpoint in instance.endpoints]
        self.pid_files.append(decided(name, process, "pid_file", target.pid_file(process)))
        self.log_files.append(decided(name, process, "", target.log_file(process)))
        for place, value in instance.attributes.items():
            if isinstance(value, str | os.PathLike):
                kind: Kind = "socket" if place.endswith("socket") else kind_of(place)
                self.claim(Mention(name, place, place, os.fspath(value)), kind, shared, is_told=False)
        told = list(mentions(name, process))
        self.mentions += told
        for mention in told:
            if kind := kind_of(mention.name):
                self.claim(mention, kind, shared, is_told=True)
        for user, account in process.credentials.users.items():
            if account.create_home_dir:
                home = Mention(name, f"pkg.credentials.users.{user}.home_dir", "data_dir", account.home_dir)
                self.claim(home, "directory", shared, is_told=False)

    def told_pid_files(self) -> tuple[Told, ...]:
        """Return the PID files that programs are told by arguments and environment, each with whose it is.

        One that a name claims belongs to that instance, and so does one that its manager uses; a path that only ends
        in ``.pid`` belongs to all that are told it, unless another one claims it: they are clients.
        """
        decided = {claim.resource: claim.instance for claim in self.pid_files if not claim.is_told}
        named = by_resource(claim for claim in self.pid_files if claim.is_told)
        mentioned = by_resource(
            Claim(mention.instance, mention.place, mention.value, os.path.normpath(path), is_told=True)
            for mention in self.mentions
            if ".pid" in mention.value
            for path in PID_PATH.findall(mention.value)
        )
        found = {path: named.get(path) or mentioned[path] for path in {**named, **mentioned}}
        own = {path: [c for c in told if decided.get(path, c.instance) == c.instance] for path, told in found.items()}
        asked = {path for path, told in named.items() if any(not c.place.startswith(ENVIRONMENT) for c in told)}
        return tuple(Told(path, tuple(told), path in asked) for path, told in own.items() if told)

    def claim(self, said: Mention, kind: Kind, shared: frozenset[str], *, is_told: bool) -> None:
        """Take in what one value claims."""
        instance, place, name, value = said
        if kind == "port":
            if is_told and value.isdecimal():
                self.ports.append(Claim(instance, place, value, int(value), is_told))
            return
        if not kind or not value.startswith("/"):
            return
        claim = Claim(instance, place, value, os.path.normpath(value), is_told)
        if kind == "pid file":
            self.pid_files.append(claim)
        elif kind == "log file":
            self.log_files.append(claim)
        elif kind == "socket":
            self.paths.append(claim)
            self.sockets.append(claim)
        elif claim.resource not in shared or is_for_one(name):
            self.paths.append(claim)
            self.directories.add(claim.resource)


def decided(instance: str, process: ManagedProcess, parameter: str, path: str) -> Claim:
    """Return the claim on a path that follows from a name, unless ``parameter`` sets it explicitly."""
    named = "instance_name" if process.instance_name else "name"
    decisive = parameter if parameter and getattr(process, parameter) else named
    return Claim(instance, f"pkg.{decisive}", getattr(process, decisive), os.path.normpath(path))


@dataclass(frozen=True)
class Neighbour:
    """What another deployment of the same machine has: all that two of them cannot both have.

    ``ports`` are who declares which, ``paths`` maps what is claimed outside the state directories, ``ids`` the
    numbers that accounts get: ``user www`` to ``uid 900``.
    """

    name: str
    ports: Sequence[tuple[str, Endpoint]] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, model: ProcessesModel, target: Target, inventory: Inventory) -> Self:
        """Return what a model has, as others see it."""
        claims = (*inventory.pid_files, *inventory.log_files, *inventory.paths)
        paths = {claim.resource: claim.instance for claim in claims if not target.state.contains(claim.resource)}
        accounts = needed_accounts(model)
        ids = {f"user {user}": f"uid {account.uid}" for user, account in accounts.users.items() if account.uid}
        ids |= {f"group {group}": f"gid {entry.gid}" for group, entry in accounts.groups.items() if entry.gid}
        return cls(name, tuple(inventory.endpoints), paths, {} if target.force_disable_user_change else ids)


def by_resource(claims: Iterable[Claim]) -> Mapping[Any, list[Claim]]:
    """Return claims by what they claim."""
    found: dict[Any, list[Claim]] = defaultdict(list)
    for claim in claims:
        found[claim.resource].append(claim)
    return found
