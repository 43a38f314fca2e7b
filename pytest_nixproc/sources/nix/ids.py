"""The files of ids that belong to an expression: one of id pools, and one of the ids assigned from them.

Both are beside it, as upstream has them: ``idresources.nix``, and ``ids.nix`` for ``processes.nix``, or
``ids-advanced.nix`` for ``processes-advanced.nix``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from pytest_nixproc.errors import Fault, ModelError, SourceError
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.ids import Assignments, Pool, read_assignments, read_pools
from pytest_nixproc.model.nix_syntax import literal
from pytest_nixproc.sources.nix.command import ProcessesExpression, expression_at
from pytest_nixproc.values.value import Value

RESOURCES: Final = "idresources.nix"
MODEL: Final = "processes"


class IdFiles(Value):
    """The files of id pools and assigned ids that exist for an expression."""

    resources: str | None
    """File of pools; None without one."""

    ids: str | None
    """File of assigned ids; None without one."""


def id_files(expression: ProcessesExpression, resources: str, ids: str) -> IdFiles:
    """Return the files that were named, or else those beside an expression.

    Raises :class:`~pytest_nixproc.errors.SourceError` for resources that were named and are not there; ids need not be
    there before they are assigned.
    """
    if resources and not os.path.isfile(resources):
        raise SourceError(f"no file {resources} with pools of ids", remedy="check --nixproc-id-resources")
    beside = f"{directory_of(expression)}/{RESOURCES}"
    return IdFiles(existing(resources or beside), existing(ids or ids_beside(expression)))


def existing(path: str) -> str | None:
    """Return the absolute path of a file; None if it does not exist."""
    return os.path.abspath(path) if os.path.isfile(path) else None


def directory_of(expression: ProcessesExpression) -> str:
    """Return the directory of the files of an expression."""
    return expression.path if expression.is_flake else os.path.dirname(expression.path)


def ids_beside(expression: ProcessesExpression) -> str:
    """Return the file of assigned ids beside an expression: ``ids-x.nix`` for ``processes-x.nix``, else ``ids.nix``."""
    name = os.path.basename(expression.path).removesuffix(".nix")
    variant = name.removeprefix(MODEL) if name.startswith(f"{MODEL}-") else ""
    return f"{directory_of(expression)}/ids{variant}.nix"


def ids_file(path: str, context: ModelContext) -> str:
    """Return the file that the ids of a model are written to."""
    return os.path.abspath(context.ids_file) if context.ids_file else ids_beside(expression_at(path))


def read(pools: Any, recorded: Any, files: IdFiles) -> tuple[Mapping[str, Pool], Assignments]:
    """Read pools and assigned ids; without a file of pools, each pool spans its assigned ids.

    Raises :class:`~pytest_nixproc.errors.ModelError`.
    """
    faults: list[Fault] = []
    assigned = read_assignments(recorded, files.ids or "", faults)
    found = read_pools(pools, files.resources or "", faults)
    if faults:
        raise ModelError(faults, origin=files.resources or files.ids or "")
    if not files.resources:
        given = {name: numbers.values() for name, numbers in assigned.ids.items() if numbers}
        found = {name: Pool(min(numbers), max(numbers)) for name, numbers in given.items()}
    return found, assigned


def text_of(assignments: Assignments) -> str:
    """Return assignments as a Nix expression in upstream's format, so that unchanged parts of a file stay the same."""
    whole: dict[str, Mapping[str, Any]] = {"ids": assignments.ids}
    if assignments.last:
        whole["lastAssignments"] = assignments.last
    return literal(sorted_deeply(whole))


def sorted_deeply(value: Any) -> Any:
    """Return nested mappings with all names in order."""
    return {name: sorted_deeply(value[name]) for name in sorted(value)} if isinstance(value, Mapping) else value
