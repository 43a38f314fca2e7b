"""The generator of s6-rc: definitions for s6-rc-compile, and the script that starts the supervision tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import Generator
from pytest_nixproc.managers.daemons import READ_PID
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.managers.s6_rc.parameters import has_companion, is_oneshot, overridden
from pytest_nixproc.managers.s6_rc.syntax import NAME_BYTES, service_name, words
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Unit

SOURCES: Final = "etc/s6/sv"
LAUNCHER: Final = "libexec/.s6-svscan"
EVERYTHING: Final = "default"

SCRIPTS: Final = "libexec"
ENTER: Final = "enter"
INITIALIZE: Final = "initialize"
"""The scripts of an instance."""

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
"""The descriptor on which s6-svscan, and s6-log, say that they are ready."""

END_BY_PID_FILE: Final = f"""{READ_PID}
read_pid "$1" || exit 0
is_ours() {{ tr '\\0' '\\n' < "/proc/$pid/environ" | grep -qxF -e "$2"; }} 2> /dev/null
is_ours "$1" "$2" && kill "-$3" "$pid"
while is_ours "$1" "$2"; do sleep 0.02; done"""
"""Stops the process that a PID file names, unless it is a stranger's; one that has ended has no environment."""


class S6RcGenerator(Generator):
    """The generator of a longrun with a logging companion for each instance, and of bundles."""

    def generate(self, launch: Launch) -> Unit:
        """Return the definitions of an instance."""
        refuse_name(launch)
        parameters = overridden(launch)
        definitions = (oneshot if is_oneshot(parameters) else longrun)(launch, parameters)
        texts = (*definitions, (f"{EVERYTHING}/contents.d/{service_name(launch.name)}", ""))
        # These are executed by s6-supervise, all else is read.
        modes = {path: SCRIPT if path.endswith(("/run", "/finish")) else 0o600 for path, _ in texts}
        files = (File(f"{SOURCES}/{path}", text, modes[path]) for path, text in texts)
        return launch.unit(*files, *scripts_of(launch))

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:
        """Return the bundle of everything, and the script that starts the supervision tree."""
        refuse_directory(target)
        # What the bundle holds is said by the units: it is gone when they are.
        files = [File(f"{SOURCES}/{path}", text) for path, text in bundle(EVERYTHING, ())] if model else []
        return (*files, File(LAUNCHER, launcher(len(model), target), SCRIPT))


Definitions = Iterator[tuple[str, str]]
"""Paths below the directory of the definitions, each with the file's text."""


def atom(name: str) -> str:
    """Return the name of the atomic service that runs a program, or starts and stops it."""
    return f"{name}-srv"


def companion(name: str) -> str:
    """Return the name of the atomic service that writes the log of a service."""
    return f"{name}-log"


def bundle(name: str, contents: Iterable[str]) -> Definitions:
    """Yield the definition of a bundle."""
    yield f"{name}/type", "bundle\n"
    for item in contents:
        yield f"{name}/contents.d/{item}", ""


def longrun(launch: Launch, parameters: Mapping[str, Any]) -> Definitions:
    """Yield the definition of a supervised program, with those of its companion and its bundle."""
    own = atom(service_name(launch.name))
    yield f"{own}/type", "longrun\n"
    yield f"{own}/run", parameters["run"] or run(launch, parameters)
    yield from settings(own, parameters, ("notification_fd", "timeout_kill", "timeout_finish", "max_death_tally"))
    yield from settings(own, parameters, ("down_signal",))
    if parameters["finish"] is not None:
        yield f"{own}/finish", parameters["finish"]
    for directory in ("data", "env"):
        for name, text in parameters[directory].items():
            yield f"{own}/{directory}/{name}", text
    yield from pipes(launch, parameters)
    yield from common(own, parameters)
    if has_companion(parameters):
        yield from logging(launch, parameters)
    else:
        yield from bundle(service_name(launch.name), [own])


def settings(own: str, parameters: Mapping[str, Any], names: Iterable[str]) -> Definitions:
    """Yield files that hold one value each."""
    for name in names:
        if parameters[name] is not None:
            yield f"{own}/{name.replace('_', '-')}", f"{parameters[name]}\n"


def common(own: str, parameters: Mapping[str, Any]) -> Definitions:
    """Yield the settings that services of every kind can have."""
    yield from settings(own, parameters, ("timeout_up", "timeout_down"))
    for name in parameters["dependencies"]:
        yield f"{own}/dependencies.d/{service_name(name)}", ""
    if parameters["flag_essential"]:
        yield f"{own}/flag-essential", ""


def pipes(launch: Launch, parameters: Mapping[str, Any]) -> Definitions:
    """Yield the files that name the reader of a longrun's output, and the longruns whose output it reads.

    They are described in "Longrun pipelining" of s6-rc-compile.
    """
    own = atom(service_name(launch.name))
    if has_companion(parameters):
        yield f"{own}/producer-for", f"{companion(service_name(launch.name))}\n"
    elif parameters["producer_for"] is not None:
        yield f"{own}/producer-for", f"{atom(service_name(parameters['producer_for']))}\n"
    if parameters["consumer_for"]:
        yield f"{own}/consumer-for", "".join(f"{atom(service_name(name))}\n" for name in parameters["consumer_for"])


def logging(launch: Launch, parameters: Mapping[str, Any]) -> Definitions:
    """Yield the definition of a logging companion.

    It copies bytes as they come: s6-log holds an unfinished line back, ends it by itself, and takes NUL for a newline.
    """
    own = companion(service_name(launch.name))
    yield f"{own}/type", "longrun\n"
    yield f"{own}/consumer-for", f"{atom(service_name(launch.name))}\n"
    whole = service_name(parameters["pipeline_name"] or launch.name)
    yield f"{own}/pipeline-name", f"{whole}\n"
    if whole != service_name(launch.name):
        yield from bundle(service_name(launch.name), [atom(service_name(launch.name)), own])
    program: tuple[str, ...] = ("cat",)
    if parameters["log_script"]:
        yield f"{own}/notification-fd", f"{READY_DESCRIPTOR}\n"
        program = ("s6-log", "-b", f"-d{READY_DESCRIPTOR}", "-l0", "--", *parameters["log_script"])
    yield f"{own}/run", script([to_log(launch), program])


def script(commands: Iterable[Iterable[str]], first: str = INTERPRETER) -> str:
    """Return an execline script, in which each command execs the next."""
    return "\n".join(filter(None, [first, *map(words, commands)])) + "\n"


def to_log(launch: Launch) -> tuple[str, ...]:
    """Return the execline command that redirects standard output to the end of the log."""
    return ("redirfd", "-a", "1", launch.log_file)


def run(launch: Launch, parameters: Mapping[str, Any]) -> str:
    """Return the script that execs the program of a longrun."""
    is_piped = has_companion(parameters) or parameters["producer_for"] is not None
    before = [("s6-envdir", "env")] if parameters["env"] else []
    return script([*([] if is_piped else [to_log(launch)]), *before]) + body(launch, launch.proxy)


def body(launch: Launch, proxy: tuple[str, ...] = ()) -> str:
    """Return the commands that set up the execution environment of a program, and exec it."""
    directory = launch.directory or "/"
    lines = [words(("fdmove", "-c", "2", "1")), words(("execline-umask", launch.umask or "0022"))]
    if launch.initialize:
        lines += [words(("execline-cd", "/")), f"if {{ {words(sourced(launch, INITIALIZE))} }}"]
    if not launch.initialize or directory != "/":
        lines.append(words(("execline-cd", directory)))
    return "\n".join([*lines, words((*sourced(launch, ENTER), *program(launch, proxy)))]) + "\n"


def sourced(launch: Launch, kind: str) -> tuple[str, ...]:
    """Return the words that run a script of an instance: each command of execline is given the rest as arguments.

    Everybody can read those, and what the script holds may be secret.
    """
    return (launch.target.facts.shell, f"{launch.target.directory}/{script_of(launch, kind)}")


def script_of(launch: Launch, kind: str) -> str:
    """Return the path of a script of an instance."""
    return f"{SCRIPTS}/{service_name(launch.name)}.{kind}"


def scripts_of(launch: Launch) -> Iterator[File]:
    """Yield the scripts that set a program's variables: before they become it, or have ``initialize`` run."""
    lines = [f"#!{launch.target.facts.shell}", *exports(launch)]
    yield File(script_of(launch, ENTER), "\n".join([*lines, 'exec "$@"']) + "\n", SCRIPT)
    if launch.initialize:
        last = f"{shell.initialization(launch)} {shell.or_report(launch, 'exit 1')}"
        yield File(script_of(launch, INITIALIZE), "\n".join([*lines, last]) + "\n", SCRIPT)


def exports(launch: Launch) -> Iterator[str]:
    """Yield the lines of a shell that set all variables, and the limits."""
    yield from shell.limits(launch)
    yield from (f"export {name}={shell.quote(value)}" for name, value in launch.environment.items())


def program(launch: Launch, proxy: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line that execs the program with its niceness and user; the proxy, if any, comes first."""
    nice = () if launch.nice is None else (launch.target.facts.nice, "-n", str(launch.nice))
    return (*proxy, *nice, *shell.switching(launch), *launch.command.argv)


def oneshot(launch: Launch, parameters: Mapping[str, Any]) -> Definitions:
    """Yield the definition of a daemon that s6-rc itself starts and stops."""
    own = atom(service_name(launch.name))
    yield f"{own}/type", "oneshot\n"
    yield f"{own}/up", parameters["up"] if parameters["up"] is not None else words(to_log(launch)) + "\n" + body(launch)
    tag = next((f"{name}={value}" for name, value in launch.target.tags.items()), "")
    stop = (launch.target.facts.shell, "-c", END_BY_PID_FILE, "sh", launch.pid_file, tag, launch.stop_signal)
    yield f"{own}/down", parameters["down"] if parameters["down"] is not None else f"{words(stop)}\n"
    yield from common(own, parameters)
    yield from bundle(service_name(launch.name), [own])


def launcher(instances: int, target: Target) -> str:
    """Return the script that writes its PID to a file and execs s6-svscan, which adds a line to the file when ready."""
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
    """Return the scan directory of s6-svscan."""
    return f"{target.state.runtime_dir}/service"


def scanner_file(target: Target) -> str:
    """Return the file that names the process of s6-svscan, in a line; a second line is there when it is ready."""
    return f"{target.state.runtime_dir}/s6-svscan.pid"


def live_directory(target: Target) -> str:
    """Return the directory of s6-rc's live state; its name is short, for the sake of the sockets in it."""
    return f"{target.state.runtime_dir}/s6"


def refuse_name(launch: Launch) -> None:
    """Raise for a process whose name is too long for that of a service."""
    if len(service_name(launch.name)) > NAME_BYTES:
        what = f"its service's name would have more than {NAME_BYTES} bytes, of which an unusual character takes three"
        raise launch.refusal(what, "give the process a shorter name")


def refuse_directory(target: Target) -> None:
    """Raise where the sockets of a supervision tree would have too long a path."""
    path = f"{live_directory(target)}/{DEEPEST_SOCKET}"
    if len(path.encode(errors="surrogateescape")) > SOCKET_PATH_LIMIT:
        what = f"its socket {path!r} has a path of more than {SOCKET_PATH_LIMIT} bytes"
        raise Unsupported("s6-rc", "the system", what, remedy="choose a shorter --nixproc-state-root")
