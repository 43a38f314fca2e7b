"""The generator of systemd: units, scripts for what a unit cannot express, and the files of a private systemd."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import Generator
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.managers.proxy import escort_argv
from pytest_nixproc.managers.systemd.launcher import BARE_UNITS, LAUNCHER, PRIVATE_UNITS, VARIABLES, launcher
from pytest_nixproc.managers.systemd.overrides import Sections, overridden
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
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.commands import Command
from pytest_nixproc.values.tags import INSTANCE
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Unit

UNITS: Final = "etc/systemd/system"
SCRIPTS: Final = "libexec"
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

LIMITS: Final[Mapping[str, str]] = {
    "open_files": "LimitNOFILE",
    "processes": "LimitNPROC",
    "core_size": "LimitCORE",
    "stack_size": "LimitSTACK",
    "locked_memory": "LimitMEMLOCK",
    "address_space": "LimitAS",
}
"""The directives that limit resources."""

ACCOUNT: Final = ("User", "Group", "DynamicUser")
"""The directives that say who runs a program."""


def prefix(target: Target) -> str:
    """Return the prefix of the names of a deployment's units: others may have theirs under the same systemd."""
    return f"nixproc-{escaped(target.identity)}"


def unit_name(target: Target, name: str) -> str:
    """Return the name of a process's unit."""
    return f"{prefix(target)}-{escaped(name)}.service"


def target_unit(target: Target) -> str:
    """Return the name of the target unit that stands for the deployment as a whole."""
    return f"{prefix(target)}.target"


class SystemdGenerator(Generator):
    """The generator of a service per instance."""

    def generate(self, launch: Launch) -> Unit:
        """Return the unit file, with scripts for what it cannot express."""
        refuse_names(launch)
        launch = escorted(launch)
        scripts = scripts_for(launch)
        sections: Sections = {
            "Unit": unit_section(launch),
            "Service": {
                "Type": "forking" if launch.mode == "daemon" else "exec",
                **({"PIDFile": path_value(note_of(launch.name, launch.target))} if launch.mode == "daemon" else {}),
                **execution(launch, scripts),
                **surroundings(launch, is_native="start" not in scripts),
                # How long a start may take is for who waits for it.
                "TimeoutStartSec": "infinity",
                "TimeoutStopSec": f"{max(launch.stop_seconds, 0.001):.3f}",
            },
        }
        command = sections["Service"]["ExecStart"]
        sections = overridden(launch, sections)
        add_marks(sections["Service"], launch)
        unit = File(f"{UNITS}/{unit_name(launch.target, launch.name)}", "\n".join(unit_file(sections)))
        opened = open_scripts(scripts, sections["Service"], launch)
        program = launch.program if sections["Service"].get("ExecStart") == command else ""
        return launch.unit(unit, *opened, log_file=log_of(sections["Service"], launch), program=program)

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:
        """Return the target unit that stands for the deployment, and the files that a private systemd needs."""
        refuse_directory(target)
        # Whatever an active unit refers to is kept in mind by systemd, and with it how its processes have ended.
        units = " ".join(unit_name(target, instance.pkg.name) for instance in model.values())
        unit = {"Description": f"Deployment {text_value(target.identity)}", "DefaultDependencies": "no"}
        text = "\n".join(unit_file({"Unit": {**unit, "After": units}}))
        return (
            File(f"{UNITS}/{target_unit(target)}", text),
            *(File(f"{PRIVATE_UNITS}/{name}", text) for name, text in BARE_UNITS.items()),
            File(LAUNCHER, launcher(target), SCRIPT),
        )


def note_of(name: str, target: Target) -> str:
    """Return the path of the escort's note, which systemd reads as PID file; whoever the escort is can write there."""
    return f"{target.state.tmp_dir}/.{name}.daemon"


def escorted(launch: Launch) -> Launch:
    """Return a launch with the escort before a daemon's command line, which stays until the daemon's PID file is valid.

    systemd would believe a stale PID file, wait for ever for one that a dead daemon has not written, refuse one that
    has more than a number in its first line, and take a number with leading zeros for an octal one.
    """
    if launch.mode == "foreground":
        return launch
    facts = launch.target.facts
    note = note_of(launch.name, launch.target)
    escort = escort_argv(facts.python, facts.package_root, launch.pid_file, note)
    return replace(launch, command=Command(escort[0], (*escort[1:], *launch.command.argv)))


def unit_section(launch: Launch) -> dict[str, Any]:
    """Return the section ``Unit``: description, dependencies, and no limit of starts."""
    dependencies = " ".join(unit_name(launch.target, name) for name in launch.dependencies)
    order = {"Requires": dependencies, "After": dependencies} if dependencies else {}
    # Tests start and stop as often as they like.
    return {"Description": text_value(launch.description), **order, "StartLimitIntervalSec": 0}


def is_native(launch: Launch) -> bool:
    """Tell whether a unit can start a program without a script; not in a directory that ``initialize`` may make."""
    values = (*launch.command.args, *launch.environment.values())
    directory = launch.directory or "/"
    in_place = is_path(directory) and (directory == "/" or not launch.initialize)
    return is_program(launch.command.program) and in_place and all(map(carries, values))


def scripts_for(launch: Launch) -> dict[str, File]:
    """Return the scripts that a unit needs: ``start`` execs the program, ``initialize`` runs before it."""
    # Percent-encoded, no name can be that of another's script.
    path = f"{SCRIPTS}/{percent_encoded(launch.name, safe='')}"
    scripts = {}
    if not is_native(launch):
        # User, nice level, limits and initialize are the unit's.
        rest = replace(launch, user=None, nice=None, limits={}, initialize="")
        scripts["start"] = File(f"{path}.start", shell.launch_script(rest, is_proxied=False), SCRIPT)
    if launch.initialize:
        lines = [f"#!{launch.target.facts.shell}"]
        if not all(map(carries, launch.environment.values())):
            lines += shell.surroundings(replace(launch, limits={}))
        lines += [shell.initialization(launch), *REPORT]
        scripts["initialize"] = File(f"{path}.initialize", "\n".join(lines) + "\n", SCRIPT)
    return scripts


def open_scripts(scripts: Mapping[str, File], service: Mapping[str, Any], launch: Launch) -> Iterator[File]:
    """Yield the scripts with modes that let their user read them; nobody knows before who a dynamic one will be."""
    chosen = {name: service[name] for name in ACCOUNT if service.get(name) is not None}
    for name, script in scripts.items():
        if chosen.get("DynamicUser"):
            yield replace(script, mode=0o755)
        elif chosen != account_settings(launch):
            user, group = (str(chosen.get(key, "")) for key in ("User", "Group"))
            yield shell.open_to_account(script, user, group, launch.target)
        else:
            yield shell.open_to_user(script, launch) if name == "start" else script


def execution(launch: Launch, scripts: Mapping[str, File]) -> dict[str, Any]:
    """Return the commands of a service, and the variables that they see."""
    target, marks = launch.target, (*launch.target.tags, INSTANCE)
    argv = script_argv(scripts["start"], target) if "start" in scripts else launch.command.argv
    own = {name: value for name, value in launch.environment.items() if name not in marks}
    settings: dict[str, Any] = {
        "Environment": [word(f"{name}={value}") for name, value in own.items() if carries(value)]
    }
    if "initialize" in scripts:
        privileges = "+" if launch.user else ""
        settings["ExecStartPre"] = privileges + command_line(script_argv(scripts["initialize"], target))
    reload = command_line((target.facts.shell, "-c", f'kill -{launch.reload_signal} "$MAINPID"'))
    stop = {} if launch.stop_signal == "TERM" else {"KillSignal": f"SIG{launch.stop_signal}"}
    return {**settings, "ExecStart": command_line(argv), "ExecReload": reload, **stop}


def script_argv(script: File, target: Target) -> tuple[str, ...]:
    """Return the words that run a script, even if systemd would refuse its path as that of a program."""
    return (target.facts.shell, f"{target.directory}/{script.path}")


def surroundings(launch: Launch, *, is_native: bool) -> dict[str, Any]:
    """Return the directives for a program's execution environment: directory, umask, limits, account and output."""
    log_file = f"append:{path_value(launch.log_file)}"
    settings = {
        "WorkingDirectory": path_value(launch.directory or "/") if is_native else "/",
        "UMask": launch.umask or "0022",
        "Nice": launch.niceness,
        # Left to itself, systemd gives what its own configuration says.
        "LimitNOFILE": f"{launch.target.facts.open_files}:{launch.target.facts.most_open_files}",
        **{LIMITS[name]: "infinity" if limit is None else limit for name, limit in launch.limits.items()},
        **account_settings(launch),
        "StandardOutput": log_file,
        "StandardError": "inherit",
        # Programs are given the same under every manager, and no other ignores it.
        "IgnoreSIGPIPE": "no",
    }
    return {name: value for name, value in settings.items() if value is not None}


def account_settings(launch: Launch) -> dict[str, str]:
    """Return the directives for a program's user and group; empty where it runs as the manager's user."""
    return {"User": path_value(launch.user), "Group": path_value(launch.group)} if launch.user else {}


def log_of(service: Mapping[str, Any], launch: Launch) -> str:
    """Return the log file, or the command that shows the journal if an override sends output there."""
    if str(service.get("StandardOutput", "")).split("+")[0] != "journal":
        return launch.log_file
    return shlex.join(journal_command(unit_name(launch.target, launch.name)))


def journal_command(name: str) -> tuple[str, ...]:
    """Return the journalctl command for the output of a unit of the system's or a user's systemd."""
    return (*JOURNAL, f"_SYSTEMD_UNIT={name}", "+", f"_SYSTEMD_USER_UNIT={name}")


def journalled(unit: Unit) -> bool:
    """Tell whether the output of a unit is in the journal, not in a file."""
    return unit.log_file.startswith(f"{JOURNAL[0]} ")


def add_marks(service: dict[str, Any], launch: Launch) -> None:
    """Add what no override may remove: the tags, and ``UnsetEnvironment`` for the variables of a private systemd."""
    own = launch.environment
    given = service.get("Environment", [])
    marks = {name: own[name] for name in (*launch.target.tags, INSTANCE)}
    service["Environment"] = [
        *(given if isinstance(given, list | tuple) else [given]),
        *(word(f"{name}={value}") for name, value in marks.items() if carries(value)),
    ]
    service["UnsetEnvironment"] = [
        *([service["UnsetEnvironment"]] if "UnsetEnvironment" in service else []),
        " ".join(name for name in VARIABLES if name not in own),
    ]


def refuse_names(launch: Launch) -> None:
    """Raise for a process whose name, log file or PID file cannot be written in a unit file."""
    if len(unit_name(launch.target, launch.name)) > NAME_BYTES:
        what = f"its unit's name would have more than {NAME_BYTES} bytes, of which an unusual character takes four"
        raise launch.refusal(what, "give the process a shorter name")
    for path in (launch.log_file, note_of(launch.name, launch.target)):
        if not is_path(path):
            what = f"the path {path!r} cannot stand in a unit"
            remedy = "choose names and paths of UTF-8 without control characters, './', and blanks or '\\' at their end"
            raise launch.refusal(what, remedy)


def refuse_directory(target: Target) -> None:
    """Raise where a private systemd could not work in the deployment's directories."""
    remedy = "choose another --nixproc-state-root"
    for path in (target.directory, target.state.state_dir):
        if ":" in path or not is_path(path):
            what = f"{path!r} cannot be in its search path, or in a unit"
            raise Unsupported("systemd", "the system", what, remedy=f"{remedy}, without ':' and control characters")
    path = f"{target.state.runtime_dir}/{SOCKET}"
    if len(path.encode(errors="surrogateescape")) > SOCKET_PATH_LIMIT:
        what = f"its socket {path!r} has a path of more than {SOCKET_PATH_LIMIT} bytes"
        raise Unsupported("systemd", "the system", what, remedy="choose a shorter --nixproc-state-root")
