"""Models in Nix: expressions, evaluated and built by the machine's own Nix.

An expression yields instances whose ``pkg`` comes from ``createManagedProcess``: that of the library which it imports
as ``<pytest-nixproc>``, or that of upstream, the Nix process management framework.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.constructors import Constructor
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.ids import Assignments
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Definition, IdRecord, Source, SuiteReader

# What reads Nix is imported when there is something to read: most sessions have nothing of it.


def read(path: str, context: ModelContext) -> ProcessesModel:
    """Read a model."""
    from pytest_nixproc.sources.nix import expressions

    return expressions.read_nix(path, context)


def read_constructor(path: str, name: str, context: ModelContext) -> Constructor:
    """Read a constructor."""
    from pytest_nixproc.sources.nix import expressions

    return expressions.read_constructor(path, name, context)


def defines_tests(path: str) -> bool:
    """Tell whether a file defines tests."""
    from pytest_nixproc.sources.nix import suites

    return suites.defines_tests(path)


def read_suite(path: str, context: ModelContext, managers: Sequence[str], profiles: Sequence[str]) -> list[Definition]:
    """Read test definitions."""
    from pytest_nixproc.sources.nix import expressions

    return expressions.read_suite(path, context, managers, profiles)


def id_file(path: str, context: ModelContext) -> str:
    """Return the file of a model's ids."""
    from pytest_nixproc.sources.nix import ids

    return ids.ids_file(path, context)


def text_of_ids(assignments: Assignments) -> str:
    """Return the text of that file."""
    from pytest_nixproc.sources.nix import ids

    return ids.text_of(assignments)


@hookimpl
def nixproc_sources() -> list[Source]:
    """Return the reader of models in Nix files, for the registry."""
    ids, suite = IdRecord(id_file, text_of_ids), SuiteReader(defines_tests, read_suite)
    return [Source("nix", (".nix",), read, takes_attribute=True, ids=ids, constructor=read_constructor, suite=suite)]
