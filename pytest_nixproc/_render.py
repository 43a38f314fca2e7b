"""The files that managers make of a model, without a deployment: the same bytes on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pytest_nixproc._registry import Registry
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.ids import ProvisionalIds, ProvisionalPorts
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.loader import ModelLike, ModelLoader
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Link, joined

ROOT: Final = "/srv/nixproc"


def generated_files(
    model: ModelLike,
    *,
    managers: Iterable[str] = (),
    root: str = ROOT,
    params: Mapping[str, Any] | None = None,
) -> dict[str, tuple[File | Link, ...]]:
    """Return the files and links that managers generate for a model, by manager; by default, for all of them.

    Nothing is started, and no manager has to be able to run here. Files are made for a deployment in ``root`` on a
    machine with the usual places of software, in the profile ``unprivileged``; so they are the same, byte for byte, on
    every machine. ``params`` are arguments for the model. Raises :class:`~pytest_nixproc.errors.NixprocError`: an
    unknown manager, a faulty model, or something that a manager refuses.
    """
    registry = Registry()
    chosen = [registry.manager(name) for name in managers] or registry.managers.values()
    state = StateDirs.under(f"{root}/var")
    target = Target(state, f"{root}/profile")
    load = ModelLoader(registry.sources, os.getcwd()).loader(model)
    files = {}
    for manager in chosen:
        arguments = ModelContext(
            state=state,
            process_manager=manager.name,
            params=params or {},
            ids=ProvisionalIds(),
            free_port=ProvisionalPorts(),
        )
        files[manager.name] = files_of(manager, load(arguments), target)
    return files


def files_of(manager: Manager, model: ProcessesModel, target: Target) -> tuple[File | Link, ...]:
    """Return everything that one manager generates for a model: whole files, and links."""
    units = [manager.unit(key, model, target) for key in model]
    parts = (*manager.generator().generate_shared(model, target), *(file for unit in units for file in unit.files))
    return (*joined(parts), *(link for unit in units for link in unit.links))
