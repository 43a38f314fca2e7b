"""The contract of a source, and what a model is told about the place where it will be deployed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_nixproc.errors import SourceError
from pytest_nixproc.machines.api import Spawn
from pytest_nixproc.model.ids import Assignments
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel

DEFAULT_MANAGER: Final = "supervisord"
"""The manager where nobody has chosen one."""


def refuse_free_port(name: str) -> int:
    """Refuse to lease a port where nothing is deployed."""
    raise SourceError(f"no port can be leased for {name!r} outside a deployment")


def refuse_to_run(command: Spawn, seconds: float) -> tuple[int | None, str]:  # noqa: ARG001 - nothing is run
    """Refuse to run a program where there is no machine."""
    raise SourceError(f"{command.argv[0]} cannot be run outside a deployment")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a source can use that has a program read its models.

    ``run`` runs a command where the tests run, for some seconds at most, and returns its exit status (None: it was
    killed then) and its output; ``seconds`` is how long one may take. ``may_download`` says whether programs may fetch
    what this machine does not have. ``cache`` is a directory for what is worth keeping, which need not exist yet; None
    where nothing is kept.
    """

    run: Callable[[Spawn, float], tuple[int | None, str]] = refuse_to_run
    seconds: float = 600.0
    may_download: bool = False
    cache: str | None = None


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a model can ask for by name; ``params`` are the user's own.

    ``ids`` are those that instances require from pools; ``free_port`` leases a port under a name of the model's choice,
    the same one each time that it is asked for. ``calling_user`` and ``calling_group`` are who the tests run as.
    ``tools``, and the files ``id_resources`` and ``ids_file`` that replace those beside the model, are for the model's
    source, not for the model.
    """

    state: StateDirs
    process_manager: str = DEFAULT_MANAGER
    force_disable_user_change: bool = True
    ids: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    system: str = "x86_64-linux"
    params: Mapping[str, Any] = field(default_factory=dict)
    free_port: Callable[[str], int] = refuse_free_port
    calling_user: str = "root"
    calling_group: str = "root"
    tools: Tools = field(default_factory=Tools)
    id_resources: str = ""
    ids_file: str = ""

    def offered(self) -> dict[str, Any]:
        """Return all arguments by name, the state directories also one by one; the user's own win."""
        return {
            **vars(self.state),
            "state": self.state,
            "process_manager": self.process_manager,
            "force_disable_user_change": self.force_disable_user_change,
            "ids": self.ids,
            "free_port": self.free_port,
            "calling_user": self.calling_user,
            "calling_group": self.calling_group,
            "system": self.system,
            **self.params,
        }


def any_file(path: str) -> bool:  # noqa: ARG001 - most kinds are told by their suffix
    """Recognise every file."""
    return True


@dataclass(frozen=True)
class IdRecord:
    """How one kind of model keeps the ids of its instances: in which file, given the model, and as which text."""

    file: Callable[[str, Arguments], str]
    text: Callable[[Assignments], str]


@dataclass(frozen=True)
class Script:
    """Python text that looks at a running system with the verbs of the NixOS test driver: one phase of a definition.

    A phase of the whole system has no ``instance``. A ``needed`` one has to have run before those that follow it.
    ``place`` is where the user has written it.
    """

    phase: str
    instance: str
    text: str
    place: str
    needed: bool


@dataclass(frozen=True)
class Scripted:
    """A model, with the scripts that look at its system, in their order, and where these find programs."""

    model: ProcessesModel
    scripts: tuple[Script, ...]
    path: tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    """A test of a system, defined with scripts: under which managers and profiles it runs, and how it is read.

    ``name`` tells it from others in its file; ``obstacle`` is why it cannot run with us. ``read`` raises what reading a
    model raises.
    """

    name: str
    managers: tuple[str, ...]
    profiles: tuple[str, ...]
    obstacle: str
    read: Callable[[Arguments], Scripted]


@dataclass(frozen=True)
class SuiteReader:
    """How one kind of file defines tests: whether one does, told without executing it; and what it defines.

    A suite is read with the names of the managers and profiles that it can choose from.
    """

    recognises: Callable[[str], bool]
    read: Callable[[str, Arguments, Sequence[str], Sequence[str]], list[Definition]]


@dataclass(frozen=True)
class Source:
    """One kind of model file: its suffixes, and the function that reads it.

    ``read`` raises :class:`~pytest_nixproc.errors.SourceError` or :class:`~pytest_nixproc.errors.ModelError`.
    A source that ``takes_attribute`` also reads ``PATH#ATTRIBUTE``, where the path may be a directory.
    ``recognises`` tells, without executing anything, whether an existing file of that suffix is meant to be a model.
    ``ids`` is how ids are kept from one deployment to another, where they are. ``constructor`` returns the
    :class:`~.constructors.Constructor` that a file has under a name, if files of this kind have any; it raises like
    ``read``. ``suite`` is how such files define tests of models, where they do.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[str, Arguments], ProcessesModel]
    takes_attribute: bool = False
    recognises: Callable[[str], bool] = any_file
    ids: IdRecord | None = None
    constructor: Callable[[str, str, Arguments], Any] | None = None
    suite: SuiteReader | None = None

    def reads(self, path: str) -> bool:
        """Tell whether a model is of this kind, by its name."""
        file, hash_sign, _ = path.partition("#")
        has_attribute = self.takes_attribute and hash_sign and (os.path.isdir(file) or file.endswith(self.suffixes))
        return path.endswith(self.suffixes) or bool(has_attribute)


def is_model_file(path: str, sources: tuple[Source, ...]) -> bool:
    """Tell whether a file is one that :func:`read_model` is meant to read."""
    return any(path.endswith(source.suffixes) and source.recognises(path) for source in sources)


def suite_reader(path: str, sources: Iterable[Source]) -> SuiteReader | None:
    """Return what reads an existing file that defines tests; None for any other file."""
    readers = (source.suite for source in sources if path.endswith(source.suffixes))
    return next((reader for reader in readers if reader and reader.recognises(path)), None)


def params_in(lines: Iterable[str]) -> dict[str, Any]:
    """Read arguments for a model, each ``NAME=VALUE``, where a value is JSON or else text."""
    params: dict[str, Any] = {}
    for line in lines:
        name, equals, text = line.strip().partition("=")
        if not equals or not name.replace("-", "_").isidentifier():
            raise SourceError(f"{line}: write NAME=VALUE")
        try:
            params[name] = json.loads(text)
        except json.JSONDecodeError:
            params[name] = text
    return params


def read_model(path: str, arguments: Arguments, sources: tuple[Source, ...]) -> ProcessesModel:
    """Read a model file with the source that its suffix names."""
    return source_of(path, sources).read(path, arguments)


def source_of(path: str, sources: tuple[Source, ...]) -> Source:
    """Return the source that reads an existing model file, by its name."""
    for source in sources:
        if source.reads(path):
            if not os.path.exists(path if os.path.isfile(path) else path.partition("#")[0]) or os.path.isdir(path):
                raise SourceError(f"no model file {path}", remedy="check --nixproc-model")
            return source
    suffixes = ", ".join(suffix for source in sources for suffix in source.suffixes)
    raise SourceError(f"{path} is no model file", remedy=f"its name has to end in one of {suffixes}")
