"""The generator: definitions in the source format of s6-rc-compile, and what starts the supervision tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import File, Generator, Target, Unit
from pytest_nixproc.managers.proxy import proxy_argv
from pytest_nixproc.managers.s6_rc.parameters import default_parameters, has_companion, is_oneshot, overridden
from pytest_nixproc.managers.s6_rc.syntax import NAME_BYTES, service_name, words
from pytest_nixproc.model.process import Command, ManagedProcess, Mode
from pytest_nixproc.model.system import ProcessesModel

SOURCES: Final = "etc/s6/sv"
LAUNCHER: Final = "libexec/.s6-svscan"
EVERYTHING: Final = "default"

ENV: Final = "/usr/bin/env"
"""Sets all variables at once."""

INTERPRETER: Final = "#!../../../execlineb -P"
"""Where execlineb is, no generated file can know: a link to it lies beside the live state, where scripts are started.

``-P`` keeps arguments out of the environment ("Options for environment management" of execlineb).
"""

USUAL_SERVICES: Final = 1000
SERVICES_PER_INSTANCE: Final = 4
"""How many directories s6-svscan looks after (``-C``); two an instance, and room for as many more in an upgrade."""

SOCKET_PATH_LIMIT: Final = 107
"""Bytes of a Unix socket's path, less the final NUL (unix(7))."""

DEEPEST_SOCKET: Final = "servicedirs/s6rc-fdholder/s"
"""The socket below the live state that s6-rc-update connects to; s6-rc is told of its place by a relative path."""

READY_DESCRIPTOR: Final = 3
"""On which s6-svscan, and s6-log, say that they are ready."""

END_BY_PID_FILE: Final = """\
pid=$(cat -- "$1" 2> /dev/null) || exit 0
is_ours() { tr '\\0' '\\n' < "/proc/$pid/environ" | grep -qxF -e "$2"; } 2> /dev/null
is_ours "$@" && kill -TERM "$pid"
while is_ours "$@"; do sleep 0.02; done"""
"""Stops the process that a PID file names, unless it is a stranger's; one that has ended has no environment."""


@dataclass(frozen=True)
class Plan:
    """One process, as it is to run at a place."""

    key: str
    process: ManagedProcess
    mode: Mode
    command: Command
    target: Target

    @property
    def name(self) -> str:
        """The name of its service."""
        return service_name(self.process.name)


class S6RcGenerator(Generator):
    """A longrun with a logging companion for each instance, and bundles."""

    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the definitions of an instance."""
        process = model[key].pkg
        refuse_name(process)
        mode, command = process.command_for("foreground")
        seconds = float(model[key].attributes.get("stop_timeout", target.stop_seconds))
        dependencies = (model[name].pkg.name for name in model.dependencies[key])
        parameters = overridden(process, mode, default_parameters(process, dependencies, target.facts.shell, seconds))
        plan = Plan(key, process, mode, command, target)
        definitions = (oneshot if is_oneshot(parameters) else longrun)(plan, parameters)
        return Unit(
            name=process.name,
            mode=mode,
            log_file=target.log_file(process),
            pid_file=target.pid_file(process) if mode == "daemon" else None,
            files=tuple(
                File(f"{SOURCES}/{path}", text, mode_of(path))
                for path, text in (*definitions, (f"{EVERYTHING}/contents.d/{plan.name}", ""))
            ),
        )

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:
        """Return the bundle of everything, and what starts the supervision tree."""
        refuse_directory(target)
        # What the bundle holds is said by the units: it is gone when they are.
        files = [File(f"{SOURCES}/{path}", text) for path, text in bundle(EVERYTHING, ())] if model else []
        return (*files, File(LAUNCHER, launcher(len(model), target), 0o755))


Definitions = Iterator[tuple[str, str]]
"""Paths below the directory of the definitions, each with the file's text."""


def atom(name: str) -> str:
    """Return what runs the program of a service, or starts and stops it."""
    return f"{name}-srv"


def companion(name: str) -> str:
    """Return what writes the log of a service."""
    return f"{name}-log"


def mode_of(path: str) -> int:
    """Return the mode of a file: what s6-supervise executes is executable."""
    return 0o755 if path.endswith(("/run", "/finish")) else 0o644


def bundle(name: str, contents: Iterable[str]) -> Definitions:
    """Yield the definition of a bundle."""
    yield f"{name}/type", "bundle\n"
    for item in contents:
        yield f"{name}/contents.d/{item}", ""


def longrun(plan: Plan, parameters: Mapping[str, Any]) -> Definitions:
    """Yield the definition of a program that is supervised, and of what belongs to it."""
    own = atom(plan.name)
    yield f"{own}/type", "longrun\n"
    yield f"{own}/run", parameters["run"] or run(plan, parameters)
    yield from settings(own, parameters, ("notification_fd", "timeout_kill", "timeout_finish", "max_death_tally"))
    yield from settings(own, parameters, ("down_signal",))
    if parameters["finish"] is not None:
        yield f"{own}/finish", parameters["finish"]
    for directory in ("data", "env"):
        for name, text in parameters[directory].items():
            yield f"{own}/{directory}/{name}", text
    yield from pipes(plan, parameters)
    yield from common(own, parameters)
    if has_companion(parameters):
        yield from logging(plan, parameters)
    else:
        yield from bundle(plan.name, [own])


def settings(own: str, parameters: Mapping[str, Any], names: Iterable[str]) -> Definitions:
    """Yield files that hold one value each."""
    for name in names:
        if parameters[name] is not None:
            yield f"{own}/{name.replace('_', '-')}", f"{parameters[name]}\n"


def common(own: str, parameters: Mapping[str, Any]) -> Definitions:
    """Yield what services of every kind can have."""
    yield from settings(own, parameters, ("timeout_up", "timeout_down"))
    for name in parameters["dependencies"]:
        yield f"{own}/dependencies.d/{service_name(name)}", ""
    if parameters["flag_essential"]:
        yield f"{own}/flag-essential", ""


def pipes(plan: Plan, parameters: Mapping[str, Any]) -> Definitions:
    """Yield who reads the output of a longrun, and whose output it reads ("Longrun pipelining" of s6-rc-compile)."""
    own = atom(plan.name)
    if has_companion(parameters):
        yield f"{own}/producer-for", f"{companion(plan.name)}\n"
    elif parameters["producer_for"] is not None:
        yield f"{own}/producer-for", f"{atom(service_name(parameters['producer_for']))}\n"
    if parameters["consumer_for"]:
        yield f"{own}/consumer-for", "".join(f"{atom(service_name(name))}\n" for name in parameters["consumer_for"])


def logging(plan: Plan, parameters: Mapping[str, Any]) -> Definitions:
    """Yield the definition of a logging companion.

    It copies bytes as they come: s6-log holds an unfinished line back, ends it by itself, and takes NUL for a newline.
    """
    own = companion(plan.name)
    yield f"{own}/type", "longrun\n"
    yield f"{own}/consumer-for", f"{atom(plan.name)}\n"
    whole = service_name(parameters["pipeline_name"] or plan.process.name)
    yield f"{own}/pipeline-name", f"{whole}\n"
    if whole != plan.name:
        yield from bundle(plan.name, [atom(plan.name), own])
    program: tuple[str, ...] = ("cat",)
    if parameters["log_script"]:
        yield f"{own}/notification-fd", f"{READY_DESCRIPTOR}\n"
        program = ("s6-log", "-b", f"-d{READY_DESCRIPTOR}", "-l0", "--", *parameters["log_script"])
    yield f"{own}/run", script([to_log(plan), program])


def script(commands: Iterable[Iterable[str]], first: str = INTERPRETER) -> str:
    """Return an execline script, each command of which becomes the next."""
    return "\n".join(filter(None, [first, *map(words, commands)])) + "\n"


def to_log(plan: Plan) -> tuple[str, ...]:
    """Return the command that has output appended to the log."""
    return ("redirfd", "-a", "1", plan.target.log_file(plan.process))


def run(plan: Plan, parameters: Mapping[str, Any]) -> str:
    """Return the script that becomes the program of a longrun."""
    is_piped = has_companion(parameters) or parameters["producer_for"] is not None
    proxy: tuple[str, ...] = ()
    if plan.mode == "daemon":
        facts = plan.target.facts
        proxy = proxy_argv(facts.python, facts.package_root, plan.target.pid_file(plan.process))
    before = [("s6-envdir", "env")] if parameters["env"] else []
    return script([*([] if is_piped else [to_log(plan)]), *before]) + body(plan, proxy)


def body(plan: Plan, proxy: tuple[str, ...] = ()) -> str:
    """Return the commands that set up what surrounds a program, and become it."""
    process, target = plan.process, plan.target
    variables = tuple(f"{name}={value}" for name, value in target.environment(process, plan.key).items())
    directory = process.directory or "/"
    lines = [words(("fdmove", "-c", "2", "1")), words(("execline-umask", process.umask or "0022"))]
    if process.initialize:
        text = f"{shell.initialization(process, target)} {shell.or_report(process, 'exit 1')}"
        lines += [words(("execline-cd", "/")), f"if {{ {words((ENV, *variables, target.facts.shell, '-c', text))} }}"]
    if not process.initialize or directory != "/":
        lines.append(words(("execline-cd", directory)))
    return "\n".join([*lines, words((ENV, *variables, *program(plan, proxy)))]) + "\n"


def program(plan: Plan, proxy: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words that become the program; the user is changed behind a proxy's back."""
    process, facts = plan.process, plan.target.facts
    nice = () if process.nice is None else (facts.nice, "-n", str(process.nice))
    argv = (*proxy, *nice, *shell.switching(process, plan.target), *plan.command.argv)
    # env(1) would take a path with this sign for one more variable.
    return argv if "=" not in argv[0] else (facts.shell, "-c", 'exec "$0" "$@"', *argv)


def oneshot(plan: Plan, parameters: Mapping[str, Any]) -> Definitions:
    """Yield the definition of a daemon that s6-rc itself starts and stops."""
    own = atom(plan.name)
    yield f"{own}/type", "oneshot\n"
    yield f"{own}/up", parameters["up"] if parameters["up"] is not None else words(to_log(plan)) + "\n" + body(plan)
    tag = next((f"{name}={value}" for name, value in plan.target.tags.items()), "")
    stop = (plan.target.facts.shell, "-c", END_BY_PID_FILE, "sh", plan.target.pid_file(plan.process), tag)
    yield f"{own}/down", parameters["down"] if parameters["down"] is not None else f"{words(stop)}\n"
    yield from common(own, parameters)
    yield from bundle(plan.name, [own])


def launcher(instances: int, target: Target) -> str:
    """Return the script that becomes s6-svscan, having said which process that is; it is ready when it says more."""
    scan, limit = scan_directory(target), SERVICES_PER_INSTANCE * instances
    options = ["-C", str(limit)] if limit > USUAL_SERVICES else []
    argv = shell.words(["s6-svscan", "-d", str(READY_DESCRIPTOR), *options, "--", scan])
    lines = [
        f"#!{target.facts.shell}",
        "umask 0022",
        f"mkdir -p -- {shell.quote(scan)} || exit 1",
        f"echo $$ > {shell.quote(scanner_file(target))} || exit 1",
        f"exec {argv} {READY_DESCRIPTOR}>> {shell.quote(scanner_file(target))}",
    ]
    return "\n".join(lines) + "\n"


def scan_directory(target: Target) -> str:
    """Return the directory that s6-svscan looks after."""
    return f"{target.state.runtime_dir}/service"


def scanner_file(target: Target) -> str:
    """Return the file that names the process of s6-svscan, in a line; a second line is there when it is ready."""
    return f"{target.state.runtime_dir}/s6-svscan.pid"


def interpreter_link(target: Target) -> str:
    """Return the link by which scripts find execlineb."""
    return f"{target.state.runtime_dir}/execlineb"


def live_directory(target: Target) -> str:
    """Return the live state of s6-rc; its name is short, for the sake of the sockets in it."""
    return f"{target.state.runtime_dir}/s6"


def refuse_name(process: ManagedProcess) -> None:
    """Raise for a process whose name is too long for that of a service."""
    if len(service_name(process.name)) > NAME_BYTES:
        what = f"its service's name would have more than {NAME_BYTES} bytes, of which an unusual character takes three"
        raise Unsupported("s6-rc", process.name, what, remedy="give the process a shorter name")


def refuse_directory(target: Target) -> None:
    """Raise where the sockets of a supervision tree would have too long a path."""
    path = f"{live_directory(target)}/{DEEPEST_SOCKET}"
    if len(path.encode(errors="surrogateescape")) > SOCKET_PATH_LIMIT:
        what = f"its socket {path!r} has a path of more than {SOCKET_PATH_LIMIT} bytes"
        raise Unsupported("s6-rc", "the system", what, remedy="choose a shorter --nixproc-state-root")
