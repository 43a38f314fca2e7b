"""The arguments that a model can ask for, about the place where it will be deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final

from pytest_nixproc.errors import SourceError
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.value import Value

DEFAULT_MANAGER: Final = "supervisord"
"""The manager where nobody has chosen one."""


def refuse_free_port(name: str) -> int:
    """Refuse to lease a port where nothing is deployed."""
    raise SourceError(f"no port can be leased for {name!r} outside a deployment")


def refuse_to_run(command: Spawn, seconds: float) -> tuple[int | None, str]:  # noqa: ARG001 - nothing is run
    """Refuse to run a program where there is no machine."""
    raise SourceError(f"{command.argv[0]} cannot be run outside a deployment")


class BuildTools(Value, kw_only=True):
    """Tools for a source that has to run a program, such as Nix, to read its models."""

    run: Callable[[Spawn, float], tuple[int | None, str]] = refuse_to_run
    """Runs a command where the tests run, for at most some seconds; returns its status (None: killed) and output."""

    seconds: float = 600.0
    """Time that one command may take."""

    may_download: bool = False
    """Whether programs may fetch files that this machine does not have."""

    cache: str | None = None
    """Directory for results that are worth keeping, which need not exist yet; None where nothing is kept."""


class ModelContext(Value, kw_only=True):
    """The arguments that a model can ask for by name, and the tools of its source."""

    state: StateDirs
    process_manager: str = DEFAULT_MANAGER
    force_disable_user_change: bool = True
    ids: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Ids that instances require, by pool and instance."""

    system: str = "x86_64-linux"
    params: Mapping[str, Any] = field(default_factory=dict)
    """The user's own arguments."""

    free_port: Callable[[str], int] = refuse_free_port
    """Leases a port under a name of the model's choice; the same name has the same port each time."""

    calling_user: str = "root"
    """User that the tests run as."""

    calling_group: str = "root"
    """Primary group of that user."""

    tools: BuildTools = field(default_factory=BuildTools)
    """Build tools for the model's source; the model itself does not get them."""

    id_resources: str = ""
    """File of pools that replaces the one beside the model; for the model's source, not for the model."""

    ids_file: str = ""
    """File of ids that replaces the one beside the model; for the model's source, not for the model."""

    def offered(self) -> dict[str, Any]:
        """Return all arguments by name, the state directories also one by one; the user's own take precedence."""
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
