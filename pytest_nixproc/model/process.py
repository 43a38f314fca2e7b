"""A managed process: one program, described without regard to the process manager that will run it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from typing import Any, ClassVar, Final

from pytest_nixproc.errors import Fault
from pytest_nixproc.model import value_types
from pytest_nixproc.model.call_site import call_site
from pytest_nixproc.model.credentials import CREDENTIALS, Credentials
from pytest_nixproc.model.names import did_you_mean, snake_case
from pytest_nixproc.model.state_files import DIRECTORIES, FILES
from pytest_nixproc.values.commands import Command
from pytest_nixproc.values.location import Location
from pytest_nixproc.values.state_files import StateDirectory, StateFile
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Mode
from pytest_nixproc.values.value import Entity, Value

PathLike = str | os.PathLike[str]
Scalar = str | int | float | os.PathLike[str]
OverrideFunction = Callable[[dict[str, Any]], Mapping[str, Any]]
Override = Mapping[str, Any] | OverrideFunction


class CamelCaseFunction(Value):
    """An override that is a function of a language whose parameters have names in camelCase."""

    apply: OverrideFunction

    def __call__(self, parameters: dict[str, Any]) -> Mapping[str, Any]:
        """Return the parameters as the function overrides them."""
        return self.apply(parameters)


def parameter(kind: value_types.ValueType, doc: str, default: Any = None) -> Any:
    """Declare a parameter of a managed process: its kind, its meaning and its default."""
    metadata = {"kind": kind, "doc": doc}
    if kind is CREDENTIALS:
        return field(default_factory=Credentials, metadata=metadata)
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


class ManagedProcess(Entity, kw_only=True):
    """One manager-agnostic process; made by :func:`create_managed_process`.

    Two processes are the same only if they are the same object: a dependency refers to one, not to its like.
    """

    name: str = parameter(
        value_types.NAME, "Names the configuration: script, program, unit; default: instance_name", ""
    )
    instance_name: str | None = parameter(value_types.NAME, "Names the PID file and the log file; default of name")
    description: str = parameter(value_types.TEXT, "One line for people; default: name", "")
    process: str | None = parameter(value_types.PATH, "Executable that can run in both modes")
    args: tuple[str, ...] = parameter(value_types.SCALARS, "Arguments of both modes", ())
    foreground_process: str | None = parameter(value_types.PATH, "Executable of foreground mode; default: process")
    foreground_process_extra_args: tuple[str, ...] = parameter(
        value_types.SCALARS, "Appended to args in foreground mode", ()
    )
    foreground_process_args: tuple[str, ...] | None = parameter(
        value_types.SCALARS, "All arguments of foreground mode; args and the extra ones then do not count"
    )
    daemon: str | None = parameter(value_types.PATH, "Executable of daemon mode; default: process")
    daemon_extra_args: tuple[str, ...] = parameter(value_types.SCALARS, "Appended to args in daemon mode", ())
    daemon_args: tuple[str, ...] | None = parameter(
        value_types.SCALARS, "All arguments of daemon mode; args and the extra ones then do not count"
    )
    pid_file: str | None = parameter(
        value_types.PATH,
        "Where the daemon writes its PID; default: INSTANCE_NAME.pid in runtime_dir, with a user in tmp_dir",
    )
    initialize: str = parameter(value_types.TEXT, "Shell text run before every start; its failure aborts the start", "")
    path: tuple[str, ...] = parameter(value_types.PATHS, "Packages whose bin directories come first in PATH", ())
    environment: Mapping[str, str] = parameter(
        value_types.ENVIRONMENT, "Environment variables; a PATH given here replaces the composed one", {}
    )
    directories: tuple[StateDirectory, ...] = parameter(
        DIRECTORIES, "Directories of its own in the state, made before it starts", ()
    )
    files: tuple[StateFile, ...] = parameter(
        FILES, "Files of its own in the state, configuration say, written before it starts", ()
    )
    directory: str | None = parameter(value_types.PATH, "Working directory; default: /")
    stop_signal: str | None = parameter(value_types.SIGNAL, "Signal that asks it to stop; default: TERM")
    reload_signal: str | None = parameter(
        value_types.SIGNAL, "Signal that asks it to read its configuration again; default: HUP"
    )
    limits: Mapping[str, int | None] = parameter(
        value_types.RESOURCE_LIMITS, "Limits of resources, soft and hard; sizes are in bytes", {}
    )
    umask: str | None = parameter(value_types.UMASK, "File mode creation mask; default: 0022")
    nice: int | None = parameter(value_types.NICE, "Nice level, on top of that of the tests")
    user: str | None = parameter(value_types.NAME, "Run as this user, unless user changes are disabled")
    dependencies: tuple[Any, ...] = parameter(value_types.DEPENDENCIES, "Processes to activate first", ())
    credentials: Credentials = parameter(CREDENTIALS, "Groups and users to create")
    overrides: Mapping[str, Override] = parameter(
        value_types.OVERRIDES, "Changes to the parameters that are generated for a manager", {}
    )
    post_install: str = parameter(
        value_types.TEXT, "Shell text run once in the generated configuration, whose directory is $out", ""
    )
    faults: tuple[Fault, ...] = ()
    defined_at: Location | None = None
    """The call in a model that has made it."""

    PARAMETERS: ClassVar[tuple[str, ...]]

    def __repr__(self) -> str:
        return f"<ManagedProcess {self.name!r}>"

    @property
    def foreground_command(self) -> Command | None:
        """The command of foreground mode; None when the process can only run as a daemon."""
        args = self.foreground_process_args
        program = self.foreground_process or self.process
        return (
            program and Command(program, self.args + self.foreground_process_extra_args if args is None else args)
        ) or None

    @property
    def daemon_command(self) -> Command | None:
        """The command of daemon mode; None when the process can only run in the foreground."""
        args = self.daemon_args
        program = self.daemon or self.process
        return (program and Command(program, self.args + self.daemon_extra_args if args is None else args)) or None

    @property
    def commands(self) -> tuple[Command, ...]:
        """The commands of all modes that the process has."""
        return tuple(filter(None, (self.foreground_command, self.daemon_command)))

    def command_for(self, preferred: Mode) -> tuple[Mode, Command]:
        """Return the mode and command that a manager with this preference runs."""
        commands: dict[Mode, Command | None] = {"foreground": self.foreground_command, "daemon": self.daemon_command}
        other: Mode = "daemon" if preferred == "foreground" else "foreground"
        mode = preferred if commands[preferred] else other
        command = commands[mode]
        assert command is not None, "validation refuses a process without any command"
        return mode, command

    def named_paths(self, *commands: Command) -> list[str]:
        """Return the paths that the process names anywhere, including those in ``commands``."""
        argv = [word for command in commands for word in command.argv]
        written = [file.text for file in self.files]
        texts = (*argv, *self.environment.values(), self.initialize, self.directory or "", *written)
        found = [*self.path, *(text for text in texts if text.startswith("/"))]
        found += [path for text in texts for path in re.findall(r"/[^\s'\"`;:,=|&<>(){}\[\]$*?]+", text)]
        # A URL has more slashes than a path: what is below a mounted directory has to be known all the same.
        return list(dict.fromkeys(re.sub("^/+", "/", os.path.normpath(path)) for path in found))

    def user_at(self, target: Target) -> str | None:
        """Return the user to switch to; None when the user is not changed."""
        return None if target.force_disable_user_change else self.user

    def pid_file_at(self, target: Target) -> str:
        """Return the path of the PID file: the same for all managers and profiles, so that programs can be given it."""
        directory = target.state.tmp_dir if self.user else target.state.runtime_dir
        return self.pid_file or f"{directory}/{self.instance_name or self.name}.pid"

    def log_file_at(self, target: Target) -> str:
        """Return the path of the log file, for managers that have no place of their own for output."""
        directory = target.state.tmp_dir if self.user_at(target) else target.state.log_dir
        return f"{directory}/nixproc-{self.instance_name or self.name}.log"


KINDS: Final[Mapping[str, value_types.ValueType]] = {
    item.name: item.metadata["kind"] for item in fields(ManagedProcess) if item.metadata
}
ManagedProcess.PARAMETERS = tuple(KINDS)


def read_managed_process(parameters: Mapping[str, object], defined_at: Location | None = None) -> ManagedProcess:
    """Read parameters in either spelling, without raising: faults are kept for the model to report together."""
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    for spelled, value in parameters.items():
        name = snake_case(str(spelled))
        if name not in KINDS:
            faults.append(Fault(str(spelled), "is no parameter of a managed process", did_you_mean(name, KINDS)))
        elif value is not None:
            values[name] = KINDS[name].read(value, spelled, faults)
    values["name"] = values.get("name") or values.get("instance_name") or ""
    values["description"] = values.get("description") or values["name"]
    faults += omissions(values["name"], parameters)
    return ManagedProcess(**values, faults=tuple(faults), defined_at=defined_at)


def omissions(name: str, given: Mapping[str, object]) -> Iterable[Fault]:
    """Yield faults for a missing name or program, unless it was given and found faulty already."""
    if not name and not {"name", "instance_name", "instanceName"} & given.keys():
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
    directories: Mapping[str, Mapping[str, object] | None] | Iterable[PathLike | Mapping[str, object]] | None = None,
    files: Mapping[str, str | Mapping[str, object]] | Iterable[Mapping[str, object]] | None = None,
    directory: PathLike | None = None,
    stop_signal: str | None = None,
    reload_signal: str | None = None,
    limits: Mapping[str, int | str] | None = None,
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
