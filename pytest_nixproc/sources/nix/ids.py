"""The files on ids that belong to an expression: pools, and which ids were assigned from them.

Both are beside it, as the original has them: ``idresources.nix``, and ``ids.nix`` for ``processes.nix``, or
``ids-advanced.nix`` for ``processes-advanced.nix``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_nixproc.errors import Fault, ModelError, SourceError
from pytest_nixproc.model.ids import Assignments, Pool, pools_around, read_assignments, read_pools
from pytest_nixproc.sources.api import Arguments, IdRecord
from pytest_nixproc.sources.nix.command import Expression, expression_at
from pytest_nixproc.sources.nix.syntax import literal

RESOURCES: Final = "idresources.nix"
MODEL: Final = "processes"


@dataclass(frozen=True)
class IdFiles:
    """The files on ids that there are for an expression; None for one that is not there."""

    resources: str | None
    ids: str | None


def id_files(expression: Expression, resources: str, ids: str) -> IdFiles:
    """Return the files that were named, or else those beside an expression.

    Raises :class:`~pytest_nixproc.errors.SourceError` for resources that were named and are not there; ids need not be
    there before they are assigned.
    """
    if resources and not os.path.isfile(resources):
        raise SourceError(f"no file {resources} with pools of ids", remedy="check --nixproc-id-resources")
    beside = f"{directory_of(expression)}/{RESOURCES}"
    return IdFiles(existing(resources or beside), existing(ids or ids_beside(expression)))


def existing(path: str) -> str | None:
    """Return the absolute path of a file that exists."""
    return os.path.abspath(path) if os.path.isfile(path) else None


def directory_of(expression: Expression) -> str:
    """Return where the files of an expression are."""
    return expression.path if expression.is_flake else os.path.dirname(expression.path)


def ids_beside(expression: Expression) -> str:
    """Return the file for the ids of an expression, with the part of its name that follows ``processes``."""
    name = os.path.basename(expression.path).removesuffix(".nix")
    variant = name.removeprefix(MODEL) if name.startswith(f"{MODEL}-") else ""
    return f"{directory_of(expression)}/ids{variant}.nix"


def ids_file(path: str, arguments: Arguments) -> str:
    """Return the file that the ids of a model are written to."""
    return os.path.abspath(arguments.ids_file) if arguments.ids_file else ids_beside(expression_at(path))


def read(pools: Any, recorded: Any, files: IdFiles) -> tuple[Mapping[str, Pool], Assignments]:
    """Read what the files hold; without pools, those ids count that were assigned.

    Raises :class:`~pytest_nixproc.errors.ModelError`.
    """
    faults: list[Fault] = []
    assigned = read_assignments(recorded, files.ids or "", faults)
    found = read_pools(pools, files.resources or "", faults)
    if faults:
        raise ModelError(faults, origin=files.resources or files.ids or "")
    return (found if files.resources else pools_around(assigned.ids)), assigned


def text_of(assignments: Assignments) -> str:
    """Return assignments as an expression, written as the original writes them: what did not change looks the same."""
    whole: dict[str, Mapping[str, Any]] = {"ids": assignments.ids}
    if assignments.last:
        whole["lastAssignments"] = assignments.last
    return literal(sorted_deeply(whole))


def sorted_deeply(value: Any) -> Any:
    """Return sets of sets and numbers with all names in order."""
    return {name: sorted_deeply(value[name]) for name in sorted(value)} if isinstance(value, Mapping) else value


RECORD: Final = IdRecord(ids_file, text_of)
