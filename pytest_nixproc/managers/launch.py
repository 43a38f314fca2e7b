"""The launch of an instance: all facts that a generator needs, resolved once for a manager and a place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.proxy import proxy_argv
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.commands import Command
from pytest_nixproc.values.tags import INSTANCE
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Link, Mode, Unit


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One instance as a manager runs it at a place; made by :meth:`~pytest_nixproc.managers.api.Manager.launch`."""

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
    def whole_stop_seconds(self) -> int:
        """How long it may take to stop, for managers that count whole seconds: never less than that."""
        return max(1, math.ceil(self.stop_seconds))

    @property
    def declared_pid_file(self) -> str | None:
        """The PID file of a daemon; None for a program that stays in the foreground, and has none by itself."""
        return self.pid_file if self.mode == "daemon" else None

    @cached_property
    def proxy(self) -> tuple[str, ...]:
        """The words before a daemon's command line that keep it in the foreground; none where that is not needed."""
        facts = self.target.facts
        return proxy_argv(facts.python, facts.package_root, self.pid_file) if self.mode == "daemon" else ()

    def refusal(self, what: str, remedy: str = "") -> Unsupported:
        """Return the error that the manager cannot express something about the process."""
        return Unsupported(self.manager, self.name, what, remedy=remedy)

    def overridden(
        self,
        parameters: Mapping[str, Any],
        *,
        part: str = "",
        spelling: Callable[[str], str] = str,
        known: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """Return generated parameters as the process overrides them, as :func:`overridden` does.

        Raises :class:`~pytest_nixproc.errors.Unsupported` for one that is not among the ``known`` ones, if any are.
        """
        changed = overridden(self.manager, self.process, parameters, part=part, spelling=spelling)
        for name in changed.keys() - set(changed if known is None else known):
            remedy = f"known are {', '.join(sorted(known or ()))}"
            raise self.refusal(f"its overrides set {name!r}, which is no parameter", remedy)
        return changed

    def unit(
        self,
        *files: File,
        scripts: Mapping[str, str] = MappingProxyType({}),
        links: Iterable[Link] = (),
        mode: Mode | None = None,
        log_file: str | None = None,
        pid_file: str | None = None,
    ) -> Unit:
        """Return the unit with some files; its mode, log file and PID file are those of the launch unless given.

        ``scripts`` are texts by path, which the manager runs.
        ``pid_file`` is for managers that find every process by one; others find daemons by theirs.
        """
        return Unit(
            name=self.name,
            mode=mode or self.mode,
            log_file=log_file or self.log_file,
            pid_file=pid_file or self.declared_pid_file,
            files=(*files, *(File(path, text, SCRIPT) for path, text in scripts.items())),
            links=tuple(links),
            key=self.key,
        )


def launch_of(manager: str, preferred: Mode, key: str, model: ProcessesModel, target: Target) -> Launch:
    """Return the launch of an instance at a place, for a manager that prefers a mode."""
    process = model[key].pkg
    mode, command = process.command_for(preferred)
    user, group = user_and_group(process, target)
    return Launch(
        manager=manager,
        key=key,
        name=process.name,
        description=process.description,
        mode=mode,
        command=command,
        environment=environment_of(process, key, target),
        directory=process.directory,
        umask=process.umask,
        nice=process.nice,
        niceness=niceness_of(process, target),
        user=user,
        group=group,
        initialize=process.initialize,
        pid_file=process.pid_file_at(target),
        log_file=process.log_file_at(target),
        level=model.level(key),
        dependencies=tuple(model[name].pkg.name for name in model.dependencies[key]),
        stop_seconds=float(model[key].attributes.get("stop_timeout", target.stop_seconds)),
        target=target,
        model=model,
    )


def environment_of(process: ManagedProcess, key: str, target: Target) -> dict[str, str]:
    """Return the whole environment of a process: PATH, its declared variables, and our tags.

    The process's own packages come before the machine's: what a model names must not be shadowed by the host's
    software of the same name.
    """
    path = [f"{package}/bin" for package in process.path] + list(target.facts.base_path)
    return {"PATH": ":".join(path), **process.environment, **target.tags, INSTANCE: key}


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


def overridden(
    manager: str,
    process: ManagedProcess,
    parameters: Mapping[str, Any],
    *,
    part: str = "",
    spelling: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Return the generated parameters as the process overrides them for a manager, or for one part of it.

    A mapping is merged in deeply (nested mappings merge, all else is replaced); a function gets the parameters and
    returns all of them anew. ``spelling`` turns the names that users write into those of the parameters.
    """
    override: Any = process.overrides.get(manager, {})
    override = override.get(part, {}) if part else override
    if callable(override):
        return dict(override(deepcopy(dict(parameters))))
    return merged(parameters, {spelling(name): value for name, value in override.items()})


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` merged in deeply."""
    result = dict(base)
    for name, change in changes.items():
        old = result.get(name)
        result[name] = merged(old, change) if isinstance(old, Mapping) and isinstance(change, Mapping) else change
    return result
