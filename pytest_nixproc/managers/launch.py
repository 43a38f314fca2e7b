"""The launch of an instance: all facts that a generator needs, resolved once for a manager and a place."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

from pytest_nixproc.errors import Fault, Unsupported
from pytest_nixproc.managers.overriding import ANY_KIND, overridden
from pytest_nixproc.managers.proxy import proxy_argv
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.commands import Command
from pytest_nixproc.values.state_files import StateDirectory, StateEntry, StateFile
from pytest_nixproc.values.tags import INSTANCE, SECRETS
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Link, Mode, Unit
from pytest_nixproc.values.value import Value

Entry = TypeVar("Entry", StateDirectory, StateFile)


class Launch(Value, kw_only=True):
    """What a manager needs to launch one instance; made by :meth:`~pytest_nixproc.managers.api.Manager.launch`."""

    manager: str
    """The manager's name."""

    key: str
    """The instance's name in the model."""

    name: str
    """The process's name, after which its files are called: no other of the model has it."""

    description: str
    """One line for people."""

    mode: Mode
    """The mode that the manager prefers, if the process can run in it; else the other one."""

    command: Command
    """The program and its arguments in this mode."""

    environment: Mapping[str, str]
    """All variables: PATH, those that the process declares, and our tags."""

    directory: str | None
    """The working directory; None where the process declares none, which means ``/``."""

    umask: str | None
    """The umask in octal digits; None where the process declares none, which means ``0022``."""

    limits: Mapping[str, int | None]
    """Limits of resources by their names, soft and hard at once; None where there is to be none."""

    nice: int | None
    """How much nicer than the tests; None where the process declares nothing."""

    niceness: int | None
    """The absolute nice level, for managers that we have not started; None where none has to be set."""

    user: str | None
    """The user to switch to, if any."""

    group: str
    """That user's primary group."""

    initialize: str
    """Shell text to run before every start; empty for none."""

    pid_file: str
    """The PID file: a daemon writes it itself; for a foreground program, the script that starts it may do so."""

    log_file: str
    """Where output goes when the manager has no place of its own for it."""

    level: int
    """How many levels of other instances have to be up before."""

    dependencies: tuple[str, ...]
    """The names of the processes that have to be up before."""

    directories: tuple[StateDirectory, ...]
    """Directories that are made in the state before; they name an owner where that is not who deploys."""

    files: tuple[StateFile, ...]
    """Files that are written in the state before, likewise."""

    stop_signal: str
    """The signal that asks it to stop, without ``SIG``."""

    reload_signal: str
    """The signal that asks it to read its configuration again, without ``SIG``."""

    stop_seconds: float
    """How long it may take to stop."""

    target: Target
    """The place where the generated files will be used."""

    model: ProcessesModel
    """The model, for facts that only one manager uses."""

    @property
    def process(self) -> ManagedProcess:
        """The process as its model describes it."""
        return self.model[self.key].pkg

    @property
    def program(self) -> str:
        """The program of the process, whatever stands before it on the command line that its manager gets."""
        _, command = self.process.command_for(self.mode)
        return command.program

    @property
    def whole_stop_seconds(self) -> int:
        """How long it may take to stop, for managers that count whole seconds: never less than that."""
        return max(1, math.ceil(self.stop_seconds))

    @property
    def declared_pid_file(self) -> str | None:
        """The PID file of a daemon; None for a program that stays in the foreground, and has none by itself."""
        return self.pid_file if self.mode == "daemon" else None

    @property
    def note(self) -> str:
        """The file in which a foreground proxy notes the daemon that it stands for."""
        return note_of(self.name, self.target)

    @cached_property
    def proxy(self) -> tuple[str, ...]:
        """The words before a daemon's command line that keep it in the foreground; none where that is not needed."""
        if self.mode == "foreground":
            return ()
        return proxy_argv(self.target.facts.python, self.target.facts.package_root, self.pid_file, self.note)

    def refusal(self, what: str, remedy: str = "") -> Unsupported:
        """Return the error that the manager cannot express something about the process."""
        return Unsupported(self.manager, self.name, what, remedy=remedy)

    def overridden(
        self,
        parameters: Mapping[str, Any],
        *,
        part: str = "",
        spelling: Callable[[str], str] = str,
        known: Collection[str] | None = None,
        kinds: Mapping[str, ValueType] = ANY_KIND,
    ) -> dict[str, Any]:
        """Return generated parameters as the process overrides them.

        ``spelling`` turns the names that users write into those of the parameters. Raises
        :class:`~pytest_nixproc.errors.Unsupported` for one that is not among the ``known`` ones, if any are, and for a
        value that is not of its kind.
        """
        faults: list[Fault] = []
        found = overridden(self.manager, self.process, parameters, faults, part=part, spelling=spelling)
        values = found.read(known, kinds, faults, part=part)
        self.refuse_overrides(faults)
        return values

    def refuse_overrides(self, faults: Sequence[Fault]) -> None:
        """Raise for faults of the process's overrides, if there are any."""
        if faults:
            what = "; ".join(f"its override {fault.path!r} {fault.problem}" for fault in faults)
            raise self.refusal(what, "; ".join(dict.fromkeys(fault.remedy for fault in faults if fault.remedy)))

    def unit(
        self,
        *files: File,
        scripts: Mapping[str, str] = MappingProxyType({}),
        links: Iterable[Link] = (),
        mode: Mode | None = None,
        log_file: str | None = None,
        pid_file: str | None = None,
        program: str | None = None,
    ) -> Unit:
        """Return the unit with some files; its mode, log file and PID file are those of the launch unless given.

        ``scripts`` are texts by path, which the manager runs.
        ``pid_file`` is for managers that find every process by one; others find daemons by theirs.
        ``program`` is for those that know which one their overrides leave; else any override may have replaced it.
        """
        return Unit(
            name=self.name,
            mode=mode or self.mode,
            log_file=log_file or self.log_file,
            pid_file=pid_file or self.declared_pid_file,
            files=(*files, *(File(path, text, SCRIPT) for path, text in scripts.items())),
            links=tuple(links),
            key=self.key,
            program=("" if self.manager in self.process.overrides else self.program) if program is None else program,
        )


def note_of(name: str, target: Target) -> str:
    """Return the path of a foreground proxy's note: its daemon's pid; empty before the starter has ended well."""
    return f"{target.state.runtime_dir}/.{name}.daemon"


def launch_of(manager: str, preferred: Mode, key: str, model: ProcessesModel, target: Target) -> Launch:
    """Return what a manager needs to launch an instance, in the preferred mode if the process can run in it."""
    process = model[key].pkg
    mode, command = process.command_for(preferred)
    user, group = user_and_group(process, target)
    entries: tuple[StateEntry, ...] = (*process.directories, *process.files)
    for entry in entries:
        if not entry.path.startswith(f"{target.state.state_dir}/") or entry.path in target.state.all():
            what = f"{entry.path} is to be its own, and lies outside the state, or is what all instances share of it"
            raise Unsupported(manager, process.name, what, remedy="name a path below one of the state directories")
    return Launch(
        manager=manager,
        key=key,
        name=process.name,
        description=process.description,
        mode=mode,
        command=command,
        environment=environment_of(process, key, target, model[key].secret_names),
        directory=process.directory,
        umask=process.umask,
        limits=process.limits,
        nice=process.nice,
        niceness=niceness_of(process, target),
        user=user,
        group=group,
        initialize=process.initialize,
        pid_file=process.pid_file_at(target),
        log_file=process.log_file_at(target),
        level=model.level(key),
        dependencies=tuple(model[name].pkg.name for name in model.dependencies[key]),
        directories=tuple(owned(directory, user, group, target) for directory in process.directories),
        files=tuple(owned(file, user, group, target) for file in process.files),
        stop_signal=process.stop_signal or "TERM",
        reload_signal=process.reload_signal or "HUP",
        stop_seconds=float(model[key].attributes.get("stop_timeout", target.stop_seconds)),
        target=target,
        model=model,
    )


def owned(entry: Entry, user: str | None, group: str, target: Target) -> Entry:
    """Return a directory or file with the owner and group that it gets: those of the process unless it names others.

    Where processes do not switch users, all is of who deploys.
    """
    if target.force_disable_user_change:
        return replace(entry, user="", group="")
    return entry if entry.user or not user else replace(entry, user=user, group=entry.group or group)


def environment_of(process: ManagedProcess, key: str, target: Target, secrets: Sequence[str] = ()) -> dict[str, str]:
    """Return the whole environment of a process: PATH, its declared variables, our tags, and which of them are secret.

    The process's own packages come before the machine's: what a model names must not be shadowed by the host's
    software of the same name.
    """
    path = [f"{package}/bin" for package in process.path] + list(target.facts.base_path)
    marks = {**target.tags, INSTANCE: key, **({SECRETS: ",".join(sorted(secrets))} if secrets else {})}
    return {"PATH": ":".join(path), **process.environment, **marks}


def niceness_of(process: ManagedProcess, target: Target) -> int | None:
    """Return the niceness of a process, added to that of the tests; None where nothing has to be set.

    It is for managers that were not started by us: below one that was, processes are as nice as the tests already.
    """
    level = target.facts.niceness + (process.nice or 0)
    return None if process.nice is None and level == 0 else max(-20, min(19, level))


def user_and_group(process: ManagedProcess, target: Target) -> tuple[str | None, str]:
    """Return the user that a process switches to, and that user's primary group: the machine's, else the model's."""
    user = process.user_at(target)
    if not user:
        return user, ""
    if known := target.accounts.users.get(user):
        return user, str(known.group)
    account = process.credentials.users.get(user)
    # A user of whom nothing is said has a group of the same name.
    return user, account.group if account and account.group else user
