"""The contract of a source, and what a model is told about the place where it will be deployed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_nixproc.errors import SourceError
from pytest_nixproc.machines.api import Spawn
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel


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
    ``tools`` are for the model's source, not for the model.
    """

    state: StateDirs
    process_manager: str = "supervisord"
    force_disable_user_change: bool = True
    ids: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    system: str = "x86_64-linux"
    params: Mapping[str, Any] = field(default_factory=dict)
    free_port: Callable[[str], int] = refuse_free_port
    calling_user: str = "root"
    calling_group: str = "root"
    tools: Tools = field(default_factory=Tools)

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


def read_param(text: str) -> tuple[str, object]:
    """Read ``NAME=VALUE``: the value is JSON, or else text; raises ``ValueError`` for what has no name."""
    name, equals, value = text.strip().partition("=")
    if not equals or not name.isidentifier():
        raise ValueError("write NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


@dataclass(frozen=True)
class Source:
    """One kind of model file: its suffixes, and the function that reads it.

    ``read`` raises :class:`~pytest_nixproc.errors.SourceError` or :class:`~pytest_nixproc.errors.ModelError`.
    A source that ``takes_attribute`` also reads ``PATH#ATTRIBUTE``, where the path may be a directory.
    ``recognises`` tells, without executing anything, whether an existing file of that suffix is meant to be a model.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[str, Arguments], ProcessesModel]
    takes_attribute: bool = False
    recognises: Callable[[str], bool] = any_file

    def reads(self, path: str) -> bool:
        """Tell whether a model is of this kind, by its name."""
        file, hash_sign, _ = path.partition("#")
        has_attribute = self.takes_attribute and hash_sign and (os.path.isdir(file) or file.endswith(self.suffixes))
        return path.endswith(self.suffixes) or bool(has_attribute)


def is_model_file(path: str, sources: tuple[Source, ...]) -> bool:
    """Tell whether a file is one that :func:`read_model` is meant to read."""
    return any(path.endswith(source.suffixes) and source.recognises(path) for source in sources)


def read_model(path: str, arguments: Arguments, sources: tuple[Source, ...]) -> ProcessesModel:
    """Read a model file with the source that its suffix names."""
    for source in sources:
        if source.reads(path):
            if not os.path.exists(path if os.path.isfile(path) else path.partition("#")[0]) or os.path.isdir(path):
                raise SourceError(f"no model file {path}", remedy="check --nixproc-model")
            return source.read(path, arguments)
    suffixes = ", ".join(suffix for source in sources for suffix in source.suffixes)
    raise SourceError(f"{path} is no model file", remedy=f"its name has to end in one of {suffixes}")
