"""Integration tests of deployed processes, on whichever process manager runs them.

The public names are imported when they are used: pytest imports this package in every session of its users.
"""

from __future__ import annotations

# Not imported from typing, which the small processes of this package can do without.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_nixproc._render import generated_files
    from pytest_nixproc._system.deploying import Deploy, ValidateConstructor
    from pytest_nixproc._system.instance import RunningInstance
    from pytest_nixproc._system.system import System
    from pytest_nixproc.errors import NixprocError
    from pytest_nixproc.hooks import hookimpl
    from pytest_nixproc.machines.api import Machine
    from pytest_nixproc.managers.api import Manager
    from pytest_nixproc.model import ready
    from pytest_nixproc.model.credentials import Credentials, Group, User
    from pytest_nixproc.model.instance import Instance
    from pytest_nixproc.model.process import ManagedProcess, create_managed_process
    from pytest_nixproc.model.system import ProcessesModel
    from pytest_nixproc.sources.loader import ModelLike
    from pytest_nixproc.values.findings import Finding
    from pytest_nixproc.values.state import StateDirs

    __version__: str

HOMES = {
    "Credentials": "model.credentials",
    "Deploy": "_system.deploying",
    "Finding": "values.findings",
    "Group": "model.credentials",
    "Instance": "model.instance",
    "Machine": "machines.api",
    "ManagedProcess": "model.process",
    "Manager": "managers.api",
    "ModelLike": "sources.loader",
    "NixprocError": "errors",
    "ProcessesModel": "model.system",
    "RunningInstance": "_system.instance",
    "StateDirs": "values.state",
    "System": "_system.system",
    "User": "model.credentials",
    "ValidateConstructor": "_system.deploying",
    "create_managed_process": "model.process",
    "generated_files": "_render",
    "hookimpl": "hooks",
}

__all__ = [
    "Credentials",
    "Deploy",
    "Finding",
    "Group",
    "Instance",
    "Machine",
    "ManagedProcess",
    "Manager",
    "ModelLike",
    "NixprocError",
    "ProcessesModel",
    "RunningInstance",
    "StateDirs",
    "System",
    "User",
    "ValidateConstructor",
    "create_managed_process",
    "generated_files",
    "hookimpl",
    "ready",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "ready":
        return import_module("pytest_nixproc.model.ready")
    if name == "__version__":
        return import_module("importlib.metadata").version("pytest-nixproc")
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
