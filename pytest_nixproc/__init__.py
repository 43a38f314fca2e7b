"""Integration tests of deployed processes, on whichever process manager runs them.

The public names are imported when they are used: pytest imports this package in every session of its users.
"""

from __future__ import annotations

# Not imported from typing, which the small processes of this package can do without.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_nixproc.deployment.system import RunningInstance, System
    from pytest_nixproc.generation import generated_files
    from pytest_nixproc.hooks import hookimpl
    from pytest_nixproc.model import ready
    from pytest_nixproc.model.credentials import Credentials, Group, User
    from pytest_nixproc.model.instance import Instance
    from pytest_nixproc.model.process import ManagedProcess, create_managed_process
    from pytest_nixproc.model.state import StateDirs
    from pytest_nixproc.model.system import ProcessesModel

HOMES = {
    "Credentials": "model.credentials",
    "Group": "model.credentials",
    "Instance": "model.instance",
    "ManagedProcess": "model.process",
    "ProcessesModel": "model.system",
    "RunningInstance": "deployment.system",
    "StateDirs": "model.state",
    "System": "deployment.system",
    "User": "model.credentials",
    "create_managed_process": "model.process",
    "generated_files": "generation",
    "hookimpl": "hooks",
}

__all__ = [
    "Credentials",
    "Group",
    "Instance",
    "ManagedProcess",
    "ProcessesModel",
    "RunningInstance",
    "StateDirs",
    "System",
    "User",
    "create_managed_process",
    "generated_files",
    "hookimpl",
    "ready",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "ready":
        return import_module("pytest_nixproc.model.ready")
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
