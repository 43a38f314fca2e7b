"""A managed process: one program, described without regard to the process manager that will run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from pytest_nixproc.errors import Fault
from pytest_nixproc.model import kinds
from pytest_nixproc.model.credentials import CREDENTIALS, Credentials
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.places import Location, call_site
from pytest_nixproc.model.state import StateDirs

Mode = Literal["foreground", "daemon"]
PathLike = str | os.PathLike[str]
Scalar = str | int | float | os.PathLike[str]
Override = Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Command:
    """A program and its arguments, as a process receives them."""

    program: str
    args: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """The program followed by its arguments."""
        return (self.program, *self.args)


def parameter(kind: kinds.Kind, doc: str, default: Any = None) -> Any:
    """Declare a parameter of a managed process: its kind, what it means and its default."""
    metadata = {"kind": kind, "doc": doc}
    if kind is CREDENTIALS:
        return field(default_factory=Credentials, metadata=metadata)
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ManagedProcess:
    """One manager-agnostic process; made by :func:`create_managed_process`.

    Two processes are the same only if they are the same object: a dependency refers to one, not to its like.
    """

    name: str = parameter(kinds.NAME, "Names the configuration: script, program, unit; default: instance_name", "")
    instance_name: str | None = parameter(kinds.NAME, "Names the PID file and the log file; default of name")
    description: str = parameter(kinds.TEXT, "One line for people; default: name", "")
    process: str | None = parameter(kinds.PATH, "Executable that can run in both modes")
    args: tuple[str, ...] = parameter(kinds.SCALARS, "Arguments of both modes", ())
    foreground_process: str | None = parameter(kinds.PATH, "Executable of foreground mode; default: process")
    foreground_process_extra_args: tuple[str, ...] = parameter(kinds.SCALARS, "Appended to args in foreground mode", ())
    foreground_process_args: tuple[str, ...] | None = parameter(
        kinds.SCALARS, "All arguments of foreground mode; args and the extra ones then do not count"
    )
    daemon: str | None = parameter(kinds.PATH, "Executable of daemon mode; default: process")
    daemon_extra_args: tuple[str, ...] = parameter(kinds.SCALARS, "Appended to args in daemon mode", ())
    daemon_args: tuple[str, ...] | None = parameter(
        kinds.SCALARS, "All arguments of daemon mode; args and the extra ones then do not count"
    )
    pid_file: str | None = parameter(
        kinds.PATH, "Where the daemon writes its PID; default: INSTANCE_NAME.pid in runtime_dir, with a user in tmp_dir"
    )
    initialize: str = parameter(kinds.TEXT, "Shell text run before every start; its failure aborts the start", "")
    path: tuple[str, ...] = parameter(kinds.PATHS, "Packages whose bin directories come first in PATH", ())
    environment: Mapping[str, str] = parameter(
        kinds.ENVIRONMENT, "Environment variables; a PATH given here replaces the composed one", {}
    )
    directory: str | None = parameter(kinds.PATH, "Working directory; default: /")
    umask: str | None = parameter(kinds.UMASK, "File mode creation mask; default: 0022")
    nice: int | None = parameter(kinds.NICE, "Nice level")
    user: str | None = parameter(kinds.NAME, "Run as this user, unless user changes are disabled")
    dependencies: tuple[Any, ...] = parameter(kinds.DEPENDENCIES, "Processes to activate first", ())
    credentials: Credentials = parameter(CREDENTIALS, "Groups and users to create")
    overrides: Mapping[str, Override] = parameter(
        kinds.OVERRIDES, "Changes to the parameters that are generated for a manager", {}
    )
    post_install: str = parameter(
        kinds.TEXT, "Shell text run once in the generated configuration, whose directory is $out", ""
    )
    faults: tuple[Fault, ...] = ()
    made_at: Location | None = None
    """The call in a model that has made it."""

    PARAMETERS: ClassVar[tuple[str, ...]]

    def __repr__(self) -> str:
        return f"<ManagedProcess {self.name!r}>"

    @property
    def foreground_command(self) -> Command | None:
        """What runs in foreground mode, or None when the process can only be a daemon."""
        args = self.foreground_process_args
        program = self.foreground_process or self.process
        return (
            program and Command(program, self.args + self.foreground_process_extra_args if args is None else args)
        ) or None

    @property
    def daemon_command(self) -> Command | None:
        """What runs in daemon mode, or None when the process can only run in the foreground."""
        args = self.daemon_args
        program = self.daemon or self.process
        return (program and Command(program, self.args + self.daemon_extra_args if args is None else args)) or None

    def command_for(self, preferred: Mode) -> tuple[Mode, Command]:
        """Return the mode and command that a manager with this preference runs."""
        commands: dict[Mode, Command | None] = {"foreground": self.foreground_command, "daemon": self.daemon_command}
        other: Mode = "daemon" if preferred == "foreground" else "foreground"
        mode = preferred if commands[preferred] else other
        command = commands[mode]
        assert command is not None, "validation refuses a process without any command"
        return mode, command

    def pid_file_in(self, state: StateDirs) -> str:
        """Return the PID file: the same for all managers, privileged or not, so that programs can be told."""
        directory = state.tmp_dir if self.user else state.runtime_dir
        return self.pid_file or f"{directory}/{self.instance_name or self.name}.pid"

    def log_file_in(self, state: StateDirs, *, force_disable_user_change: bool) -> str:
        """Return where output goes when the manager has no place of its own for it."""
        switches_user = self.user and not force_disable_user_change
        return f"{state.tmp_dir if switches_user else state.log_dir}/nixproc-{self.instance_name or self.name}.log"


ManagedProcess.PARAMETERS = tuple(item.name for item in fields(ManagedProcess) if item.metadata)


def read_managed_process(parameters: Mapping[str, object], made_at: Location | None = None) -> ManagedProcess:
    """Read parameters in either spelling; never raises: the faults are kept for the model to report together."""
    faults: list[Fault] = []
    known = {item.name: item.metadata["kind"] for item in fields(ManagedProcess) if item.metadata}
    values: dict[str, Any] = {}
    for spelled, value in parameters.items():
        name = snake_case(str(spelled))
        if name not in known:
            near = get_close_matches(name, known, n=1)
            faults.append(
                Fault(str(spelled), "is no parameter of a managed process", f"did you mean {near[0]}?" if near else "")
            )
        elif value is not None:
            values[name] = known[name].read(value, spelled, faults)
    values["name"] = values.get("name") or values.get("instance_name") or ""
    values["description"] = values.get("description") or values["name"]
    process = ManagedProcess(**values, faults=tuple(faults))
    return ManagedProcess(**values, faults=(*faults, *omissions(process, parameters)), made_at=made_at)


def omissions(process: ManagedProcess, given: Mapping[str, object]) -> Iterable[Fault]:
    """Yield what is missing from a process as a whole, unless it was given and found faulty already."""
    if not process.name and not {"name", "instance_name", "instanceName"} & given.keys():
        yield Fault("name", "is missing, and so is instance_name")
    programs = ("process", "foreground_process", "foregroundProcess", "daemon")
    if not any(given.get(name) for name in programs):
        yield Fault("process", "is missing, and so are foreground_process and daemon")


def create_managed_process(
    *,
    name: str | None = None,
    instance_name: str | None = None,
    description: str | None = None,
    process: PathLike | None = None,
    args: Iterable[Scalar] | None = None,
    foreground_process: PathLike | None = None,
    foreground_process_extra_args: Iterable[Scalar] | None = None,
    foreground_process_args: Iterable[Scalar] | None = None,
    daemon: PathLike | None = None,
    daemon_extra_args: Iterable[Scalar] | None = None,
    daemon_args: Iterable[Scalar] | None = None,
    pid_file: PathLike | None = None,
    initialize: str | None = None,
    path: Iterable[PathLike] | None = None,
    environment: Mapping[str, Scalar] | None = None,
    directory: PathLike | None = None,
    umask: str | None = None,
    nice: int | str | None = None,
    user: str | None = None,
    dependencies: Iterable[object] | None = None,
    credentials: Credentials | Mapping[str, Mapping[str, Mapping[str, object]]] | None = None,
    overrides: Mapping[str, Override] | None = None,
    post_install: str | None = None,
) -> ManagedProcess:
    """Describe one process for all managers; ``docs/model.md`` explains every parameter.

    Faults are not raised here: the model that holds the process reports all of them at once, each with its path.
    """
    return read_managed_process(locals(), call_site())
