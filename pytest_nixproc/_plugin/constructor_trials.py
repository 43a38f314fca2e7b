"""Constructors that tests validate: found by name, compared, and made models of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_nixproc._plugin.deployer import Deployer
from pytest_nixproc._plugin.matrix import Point
from pytest_nixproc.errors import ConflictError, SourceError
from pytest_nixproc.model.constructors import Constructor, ConstructorTrial
from pytest_nixproc.sources.files import FILES
from pytest_nixproc.sources.python import call, constructor_of
from pytest_nixproc.values.findings import errors_of


def check_constructor(deployer: Deployer, point: Point, trial: ConstructorTrial) -> None:
    """Apply the rules about constructors to a trial; raises :class:`~pytest_nixproc.errors.ConflictError`.

    Warnings are told at the end of the session.
    """
    with deployer.session.unbooted(point) as machine:
        planner = deployer.planner(point, machine)
        context = planner.inputs.context(planner.allocate())
        findings = planner.rulebook.constructor(trial, context, FILES)
    deployer.session.findings.note(findings)
    errors = errors_of(findings)
    deployer.session.findings.tell(*(finding for finding in findings if finding not in errors))
    if errors:
        brief = f"instances of {trial.constructor.name} conflict"
        raise ConflictError(brief, errors)


def constructor_at(
    deployer: Deployer, point: Point, constructor: str | Callable[..., Any], directory: Path
) -> Constructor:
    """Return a constructor that is given as a function, or as ``FILE:NAME`` relative to a directory."""
    if callable(constructor):
        return constructor_of(constructor)
    file, colon, name = constructor.rpartition(":")
    path = str(directory / file)
    readers = [source.constructor for source in deployer.session.registry.sources if file.endswith(source.suffixes)]
    if not colon or not any(readers):
        raise SourceError(f"{constructor!r} names no constructor", remedy="write FILE:NAME, such as lib.py:server")
    if not os.path.isfile(path):
        raise SourceError(f"there is no file {path}", remedy="check the path of the constructor")
    with deployer.session.unbooted(point) as machine:
        planner = deployer.planner(point, machine)
        context = planner.inputs.context(planner.allocate())
        made: Constructor = next(reader for reader in readers if reader)(path, name, context)
    return made


def trial_of(
    constructor: Constructor,
    vary: Mapping[str, Sequence[Any]],
    shared: Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None,
) -> ConstructorTrial:
    """Return a trial of a constructor; ``shared`` may be a function with named arguments, like that of a model."""
    if shared is None:
        return ConstructorTrial(constructor, vary)
    if callable(shared):
        function = shared
        return ConstructorTrial(constructor, vary, lambda context: call(function, replace(context, params={})))
    values = dict(shared)
    return ConstructorTrial(constructor, vary, lambda _: values)
