"""The hooks by which a module offers parts to the registry, in the order in which a deployment uses them.

An implementation is marked with ``pytest_nixproc.hookimpl``, and its module is found in the package, or through the
entry point group ``pytest_nixproc``. A module of ours is named as the manager or machine that it offers, so that no
other one has to be imported for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from pytest_nixproc.checks.api import Rule
from pytest_nixproc.hooks import PROJECT
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.sources.api import Source

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def nixproc_sources() -> Sequence[Source]:
    """Return readers of model files, for the registry; the first whose suffix fits reads a file."""
    raise NotImplementedError


@hookspec
def nixproc_checks() -> Sequence[Rule]:
    """Return rules about models, constructors, running systems and stops of single instances, for the registry."""
    raise NotImplementedError


@hookspec
def nixproc_managers() -> Sequence[Manager]:
    """Return process managers, for the registry."""
    raise NotImplementedError


@hookspec
def nixproc_machines() -> Sequence[type[Machine]]:
    """Return machines, for the registry."""
    raise NotImplementedError
