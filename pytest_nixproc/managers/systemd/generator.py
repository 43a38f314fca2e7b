"""The generator: a unit per instance, scripts for what a unit cannot say, and the deployment's own systemd."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import File, Generator, Target, Unit, apply_override
from pytest_nixproc.managers.proxy import escort_argv
from pytest_nixproc.managers.systemd.launcher import LAUNCHER, PRIVATE_UNITS, VARIABLES, launcher, private_units
from pytest_nixproc.managers.systemd.syntax import (
    NAME_BYTES,
    carries,
    command_line,
    escaped,
    is_path,
    is_program,
    path_value,
    text_value,
    unit_file,
    word,
)
from pytest_nixproc.model.process import Command, ManagedProcess
from pytest_nixproc.model.system import ProcessesModel

UNITS: Final = "etc/systemd/system"
SCRIPTS: Final = "libexec"
SECTIONS: Final = ("Unit", "Service", "Install")
SOCKET: Final = "systemd/private"
"""Where a systemd that is not the first process listens, below XDG_RUNTIME_DIR."""

SOCKET_PATH_LIMIT: Final = 107
"""Bytes of a Unix socket's path, less the final NUL (unix(7))."""

JOURNAL: Final = ("journalctl", "--quiet", "--output=cat", "--all")
"""How a journal is read: messages alone, and all of their bytes (journalctl(1))."""

REPORT: Final = (
    "status=$?",
    '[ "$status" = 0 ] || echo "initialize failed (status $status)" >&2',
    'exit "$status"',
)
"""How the script for ``initialize`` ends: systemd may forget the status, when it is told to read all units again."""

Sections = dict[str, dict[str, Any]]


def prefix(target: Target) -> str:
    """Return how the names of all units of a deployment begin: others may have theirs under the same systemd."""
    return f"nixproc-{escaped(target.identity)}"


def unit_name(target: Target, name: str) -> str:
    """Return the unit of a process."""
    return f"{prefix(target)}-{escaped(name)}.service"


def target_unit(target: Target) -> str:
    """Return the unit that stands for the deployment as a whole."""
    return f"{prefix(target)}.target"


class SystemdGenerator(Generator):
    """One service per instance."""

    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the unit file, with scripts where it cannot say it all."""
        process = model[key].pkg
        refuse_names(process, target)
        mode, command = process.command_for("foreground")
        if mode == "daemon":
            # systemd would believe a stale PID file, and wait for ever for one that a dead daemon has not written.
            escort = escort_argv(target.facts.python, target.facts.package_root, target.pid_file(process))
            command = Command(escort[0], (*escort[1:], *command.argv))
        scripts = scripts_for(key, process, command, target)
        sections: Sections = {
            "Unit": unit_section(key, model, target),
            "Service": {
                "Type": "forking" if mode == "daemon" else "simple",
                **({"PIDFile": path_value(target.pid_file(process))} if mode == "daemon" else {}),
                **execution(key, process, command, scripts, target),
                **surroundings(process, target, is_native="start" not in scripts),
                **time_limits(float(model[key].attributes.get("stop_timeout", target.stop_seconds))),
            },
        }
        sections = overridden(process, sections)
        add_marks(sections["Service"], key, process, target)
        text = "\n".join(unit_file(sections))
        return Unit(
            name=process.name,
            mode=mode,
            log_file=log_of(sections["Service"], process, target),
            pid_file=target.pid_file(process) if mode == "daemon" else None,
            files=(File(f"{UNITS}/{unit_name(target, process.name)}", text), *scripts.values()),
        )

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:
        """Return the unit that stands for the deployment, and what a systemd of its own needs."""
        refuse_directory(target)
        # Whatever an active unit refers to is kept in mind by systemd, and with it how its processes have ended.
        units = " ".join(unit_name(target, instance.pkg.name) for instance in model.values())
        unit = {"Description": f"Deployment {text_value(target.identity)}", "DefaultDependencies": "no"}
        text = "\n".join(unit_file({"Unit": {**unit, "After": units}}))
        return (
            File(f"{UNITS}/{target_unit(target)}", text),
            *(File(f"{PRIVATE_UNITS}/{name}", text) for name, text in private_units().items()),
            File(LAUNCHER, launcher(target), 0o755),
        )


def unit_section(key: str, model: ProcessesModel, target: Target) -> dict[str, Any]:
    """Return what a unit says of itself and others."""
    dependencies = " ".join(unit_name(target, model[name].pkg.name) for name in model.dependencies[key])
    order = {"Requires": dependencies, "After": dependencies} if dependencies else {}
    # Tests start and stop as often as they like.
    return {"Description": text_value(model[key].pkg.description), **order, "StartLimitIntervalSec": 0}


def is_native(process: ManagedProcess, command: Command, environment: Mapping[str, str]) -> bool:
    """Tell whether a unit can say everything about a program; not the directory, if ``initialize`` may make it."""
    values = (*command.args, *environment.values())
    directory = process.directory or "/"
    in_place = is_path(directory) and (directory == "/" or not process.initialize)
    return is_program(command.program) and in_place and all(map(carries, values))


def scripts_for(key: str, process: ManagedProcess, command: Command, target: Target) -> dict[str, File]:
    """Return the scripts that a unit needs: ``start`` becomes the program, ``initialize`` runs before it."""
    # Percent-encoded, no name can be that of another's script.
    path = f"{SCRIPTS}/{percent_encoded(process.name, safe='')}"
    environment = target.environment(process, key)
    scripts = {}
    if not is_native(process, command, environment):
        # User, nice level and initialize are the unit's.
        rest = replace(process, user=None, nice=None, initialize="")
        scripts["start"] = File(f"{path}.start", shell.launch_script(rest, command, target, key), 0o755)
    if process.initialize:
        lines = [f"#!{target.facts.shell}"]
        if not all(map(carries, environment.values())):
            lines += shell.surroundings(process, environment)
        lines += [shell.initialization(process, target), *REPORT]
        scripts["initialize"] = File(f"{path}.initialize", "\n".join(lines) + "\n", 0o755)
    return scripts


def execution(
    key: str, process: ManagedProcess, command: Command, scripts: Mapping[str, File], target: Target
) -> dict[str, Any]:
    """Return the commands of a service, and the variables that they see."""
    argv = script_argv(scripts["start"], target) if "start" in scripts else command.argv
    own = target.environment(process, key)
    for name in (*target.tags, "NIXPROC_INSTANCE"):
        own.pop(name, None)
    settings: dict[str, Any] = {
        "Environment": [word(f"{name}={value}") for name, value in own.items() if carries(value)]
    }
    if "initialize" in scripts:
        privileges = "+" if target.user_of(process) else ""
        settings["ExecStartPre"] = privileges + command_line(script_argv(scripts["initialize"], target))
    reload = command_line((target.facts.shell, "-c", 'kill -HUP "$MAINPID"'))
    return {**settings, "ExecStart": command_line(argv), "ExecReload": reload}


def script_argv(script: File, target: Target) -> tuple[str, ...]:
    """Return the words that run a script, whose path may hold what the path of a program may not."""
    return (target.facts.shell, f"{target.directory}/{script.path}")


def surroundings(process: ManagedProcess, target: Target, *, is_native: bool) -> dict[str, Any]:
    """Return what surrounds a program."""
    log_file = f"append:{path_value(target.log_file(process))}"
    user = target.user_of(process)
    settings = {
        "WorkingDirectory": path_value(process.directory or "/") if is_native else "/",
        "UMask": process.umask or "0022",
        "Nice": process.nice,
        "User": user and path_value(user),
        "Group": user and path_value(shell.primary_group(process, user, target)),
        "StandardOutput": log_file,
        "StandardError": "inherit",
        # Programs are given the same under every manager, and no other ignores it.
        "IgnoreSIGPIPE": "no",
    }
    return {name: value for name, value in settings.items() if value is not None}


def time_limits(stop_seconds: float) -> dict[str, Any]:
    """Return the limits: how long a start may take is for who waits for it."""
    return {"TimeoutStartSec": "infinity", "TimeoutStopSec": f"{max(stop_seconds, 0.001):.3f}"}


def log_of(service: Mapping[str, Any], process: ManagedProcess, target: Target) -> str:
    """Return the log file, or the command that shows what an override sends to the journal."""
    if str(service.get("StandardOutput", "")).split("+")[0] != "journal":
        return target.log_file(process)
    return shlex.join(journal_command(unit_name(target, process.name)))


def journal_command(name: str) -> tuple[str, ...]:
    """Return the command that shows what a unit of the system or of a user has written; no other has its name."""
    return (*JOURNAL, f"_SYSTEMD_UNIT={name}", "+", f"_SYSTEMD_USER_UNIT={name}")


def journalled(unit: Unit) -> bool:
    """Tell whether the output of a unit is in the journal, not in a file."""
    return unit.log_file.startswith(f"{JOURNAL[0]} ")


def overridden(process: ManagedProcess, sections: Sections) -> Sections:
    """Return the sections as the process overrides them; raises for what is none, or would not stay in its line."""
    changed = apply_override("systemd", process, sections)
    for section, directives in changed.items():
        known = section in SECTIONS or section.startswith("X-")
        if not known or not isinstance(directives, Mapping):
            what = f"its overrides set {section!r}, which is no section of a service"
            remedy = f"known are {', '.join(SECTIONS)} and X-…, each a mapping: {{'Service': {{'Restart': 'always'}}}}"
            raise Unsupported("systemd", process.name, what, remedy=remedy)
        for name, value in directives.items():
            refuse_lines(process, section, name, value)
    return {section: dict(directives) for section, directives in changed.items()}


def refuse_lines(process: ManagedProcess, section: str, name: str, value: object) -> None:
    """Raise for a directive that would be more than a line."""
    for item in value if isinstance(value, list | tuple) else (value,):
        if not re.fullmatch("[A-Za-z0-9-]+", name) or re.search(r"[\r\n\x00]|\\\Z", str(item)) or item is None:
            what = f"its overrides set {section}.{name} to {item!r}, which is not one line of a unit file"
            remedy = "write it as in a unit file; a list repeats the directive"
            raise Unsupported("systemd", process.name, what, remedy=remedy)


def add_marks(service: dict[str, Any], key: str, process: ManagedProcess, target: Target) -> None:
    """Add what no override is to take away: the tags, and that a systemd of our own keeps its variables."""
    own = target.environment(process, key)
    given = service.get("Environment", [])
    marks = {name: own[name] for name in (*target.tags, "NIXPROC_INSTANCE")}
    service["Environment"] = [
        *(given if isinstance(given, list | tuple) else [given]),
        *(word(f"{name}={value}") for name, value in marks.items() if carries(value)),
    ]
    service["UnsetEnvironment"] = [
        *([service["UnsetEnvironment"]] if "UnsetEnvironment" in service else []),
        " ".join(name for name in VARIABLES if name not in own),
    ]


def refuse_names(process: ManagedProcess, target: Target) -> None:
    """Raise for a process whose name or files cannot stand in a unit."""
    if len(unit_name(target, process.name)) > NAME_BYTES:
        what = f"its unit's name would have more than {NAME_BYTES} bytes, of which an unusual character takes four"
        raise Unsupported("systemd", process.name, what, remedy="give the process a shorter name")
    for path in (target.log_file(process), target.pid_file(process)):
        if not is_path(path):
            what = f"the path {path!r} cannot stand in a unit"
            remedy = "choose names and paths of UTF-8 without control characters, './', and blanks or '\\' at their end"
            raise Unsupported("systemd", process.name, what, remedy=remedy)


def refuse_directory(target: Target) -> None:
    """Raise where the place of a deployment is none for a systemd of its own."""
    remedy = "choose another --nixproc-state-root"
    for path in (target.directory, target.state.state_dir):
        if ":" in path or not is_path(path):
            what = f"{path!r} cannot be in its search path, or in a unit"
            raise Unsupported("systemd", "the system", what, remedy=f"{remedy}, without ':' and control characters")
    path = f"{target.state.runtime_dir}/{SOCKET}"
    if len(path.encode(errors="surrogateescape")) > SOCKET_PATH_LIMIT:
        what = f"its socket {path!r} has a path of more than {SOCKET_PATH_LIMIT} bytes"
        raise Unsupported("systemd", "the system", what, remedy="choose a shorter --nixproc-state-root")
