"""The contract of a source, and what a model is told about the place where it will be deployed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_nixproc.errors import SourceError
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel


def refuse_free_port(name: str) -> int:
    """Refuse to lease a port where nothing is deployed."""
    raise SourceError(f"no port can be leased for {name!r} outside a deployment")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a model can ask for by name; ``params`` are the user's own.

    ``ids`` are those that instances require from pools; ``free_port`` leases a port under a name of the model's choice,
    the same one each time that it is asked for.
    """

    state: StateDirs
    process_manager: str = "supervisord"
    force_disable_user_change: bool = True
    ids: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    system: str = "x86_64-linux"
    params: Mapping[str, Any] = field(default_factory=dict)
    free_port: Callable[[str], int] = refuse_free_port

    def offered(self) -> dict[str, Any]:
        """Return all arguments by name, the state directories also one by one; the user's own win."""
        return {
            **vars(self.state),
            "state": self.state,
            "process_manager": self.process_manager,
            "force_disable_user_change": self.force_disable_user_change,
            "ids": self.ids,
            "free_port": self.free_port,
            "system": self.system,
            **self.params,
        }


@dataclass(frozen=True)
class Source:
    """One kind of model file: its suffixes, and the function that reads it.

    ``read`` raises :class:`~pytest_nixproc.errors.SourceError` or :class:`~pytest_nixproc.errors.ModelError`.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[str, Arguments], ProcessesModel]


def read_model(path: str, arguments: Arguments, sources: tuple[Source, ...]) -> ProcessesModel:
    """Read a model file with the source that its suffix names."""
    for source in sources:
        if path.endswith(source.suffixes):
            if not os.path.isfile(path):
                raise SourceError(f"no model file {path}", remedy="check --nixproc-model")
            return source.read(path, arguments)
    suffixes = ", ".join(suffix for source in sources for suffix in source.suffixes)
    raise SourceError(f"{path} is no model file", remedy=f"its name has to end in one of {suffixes}")
