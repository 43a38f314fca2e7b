"""Stands in for cygrunsrv and the service control manager of Windows: a strict model of the documented options.

The first argument is the directory that plays the registry; then come the arguments of cygrunsrv. What a service does
with its program is what cygrunsrv's README and source say, with shorter waits. A call that cygrunsrv would not take,
or that this model does not know, is noted in ``violations``, and ends with status 99.

A deployment calls it ten times, so it imports little: most of a call's time is the start of the interpreter.
"""

from __future__ import annotations

import marshal
import os
import resource
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

SINGLE = {"path", "args", "chdir", "disp", "desc", "type", "stdin", "stdout", "stderr", "pidfile", "termsig"} | {
    "user",
    "passwd",
}
REPEATED = {"env": 255, "dep": 16}
FLAGS = {"shutdown", "neverexits"}
ACTIONS = {"install", "remove", "start", "stop", "query", "list"}
UNKNOWN, EXISTS, DEPENDENTS_RUN, NOT_ACTIVE, TIMEOUT, NO_DEPENDENCY = 1060, 1073, 1051, 1062, 1053, 1075
START_SECONDS, STOP_SECONDS, LOOK_SECONDS = 30.0, 21.0, 0.01
USUAL_OPEN_FILES = 256

REGISTRY, *WORDS = sys.argv[1:]


def refuse(problem: str) -> NoReturn:
    """Note a call that must not be made."""
    with open(f"{REGISTRY}/violations", "a", encoding="utf-8") as file:
        file.write(f"{problem}: {WORDS!r}\n")
    sys.exit(99)


def fail(function: str, number: int) -> NoReturn:
    """End as cygrunsrv does when Windows does not do what it is asked for."""
    print(f"cygrunsrv: {function}: Win32 error {number}", file=sys.stderr)
    sys.exit(1)


def parsed() -> tuple[str, dict[str, Any]]:
    """Return the action and its options; long options only, each with its value behind it."""
    options: dict[str, Any] = {}
    action, words = "", iter(WORDS)
    for word in words:
        name = word.removeprefix("--")
        if name == word or name not in SINGLE | REPEATED.keys() | FLAGS | ACTIONS:
            refuse(f"unknown option {word}")
        if name in ACTIONS:
            if action:
                refuse("more than one action")
            action = name
            options["name"] = next(words, "") if name != "list" else None
        elif action != "install":
            refuse(f"{word} is only allowed with --install, and after it")
        elif name in FLAGS:
            options[name] = True
        else:
            add(options, name, next(words, None))
    return action, options


def add(options: dict[str, Any], name: str, value: str | None) -> None:
    """Add the value of one option."""
    if value is None:
        refuse(f"--{name} without a value")
    if name in REPEATED:
        options.setdefault(name, []).append(value)
        if len(options[name]) > REPEATED[name]:
            refuse(f"too many --{name}")
    elif name in options:
        refuse(f"only one --{name} is allowed")
    else:
        options[name] = value


def key_of(name: str) -> str:
    """Return the file of a service; names of services differ by more than case."""
    return f"{REGISTRY}/services/{name.casefold().encode().hex()}"


def service(name: str) -> dict[str, Any]:
    """Return what is known of an installed service."""
    try:
        with open(key_of(name), "rb") as file:
            found: dict[str, Any] = marshal.load(file)  # noqa: S302 - what it has written itself
    except FileNotFoundError:
        fail("OpenService", UNKNOWN)
    return found


def save(found: dict[str, Any]) -> None:
    """Write down what is known of a service."""
    new = f"{REGISTRY}/new-{os.getpid()}"
    with open(new, "wb") as file:
        marshal.dump(found, file)
    os.rename(new, key_of(found["name"]))


def is_alive(pid: int) -> bool:
    """Tell whether a process runs."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False


def await_that(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds; tell whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def install(options: dict[str, Any]) -> None:
    """Enter a service into the registry."""
    name = options["name"]
    if not name or "/" in name or "\\" in name or not name.isascii() or not name.isprintable():
        refuse("no name of a local service")
    if not options.get("path", "").startswith("/"):
        refuse("--path is required")
    if options.get("type", "auto") not in ("auto", "manual"):
        refuse("invalid type")
    if "passwd" in options and "user" not in options:
        refuse("--passwd without --user")
    if "user" in options and "passwd" not in options:
        refuse("it would ask for a password")
    if any("=" not in entry for entry in options.get("env", [])):
        refuse("malformed environment string")
    number_of(options.get("termsig", "TERM"))
    if os.path.exists(key_of(name)):
        fail("CreateService", EXISTS)
    save({**options, "state": "Stopped", "host": 0})


def number_of(name: str) -> int:
    """Return a signal's number."""
    try:
        return int(name) if name.isdigit() else signal.Signals[f"SIG{name}"].value
    except KeyError:
        refuse("invalid signal")


def dependents(name: str) -> list[dict[str, Any]]:
    """Return the services that depend on one."""
    names = [bytes.fromhex(entry).decode() for entry in os.listdir(f"{REGISTRY}/services")]
    return [found for found in map(service, names) if name in found.get("dep", [])]


def start(options: dict[str, Any]) -> None:
    """Start a service, after those that it depends on; wait until it runs."""
    found = service(options["name"])
    if found["state"] != "Stopped":
        return
    for name in found.get("dep", []):
        if not os.path.exists(key_of(name)):
            fail("StartService", NO_DEPENDENCY)
        start({"name": name})
    save(found | {"state": "Start Pending"})
    if os.fork() == 0:
        os.setsid()
        with open(os.devnull, "r+b") as null:
            for descriptor in range(3):
                os.dup2(null.fileno(), descriptor)
        serve(found)
    await_that(lambda: service(options["name"])["state"] != "Start Pending", START_SECONDS)
    if service(options["name"])["state"] != "Running":
        fail("QueryServiceStatus", NOT_ACTIVE)


def serve(found: dict[str, Any]) -> NoReturn:
    """Be the service: run the program, wait for its end, and say how things are meanwhile."""
    try:
        found["host"] = os.getpid()
        pid_file = found.get("pidfile")
        before = stamp(pid_file)
        child = os.fork()
        if child == 0:
            become_program(found)
        if pid_file is None:
            time.sleep(0.05)
            if os.waitpid(child, os.WNOHANG)[0] == 0:
                save(found | {"state": "Running", "target": -child})
                os.waitpid(child, 0)
        elif os.waitpid(child, 0)[1] == 0 and await_that(lambda: stamp(pid_file) not in ("", before), START_SECONDS):
            with open(pid_file, encoding="utf-8") as file:
                pid = int(file.read().split()[0])
            save(found | {"state": "Running", "target": pid})
            while is_alive(pid):
                time.sleep(LOOK_SECONDS)
            if os.path.exists(pid_file):
                os.unlink(pid_file)
    finally:
        save(found | {"state": "Stopped", "host": 0})
        os._exit(0)


def stamp(path: str | None) -> str:
    """Return what changes when a file is written; empty without it, or while nothing is in it."""
    try:
        facts = os.stat(path or "")
    except FileNotFoundError:
        return ""
    return f"{facts.st_mtime_ns} {facts.st_ino}" if facts.st_size else ""


def become_program(found: dict[str, Any]) -> NoReturn:
    """Do what the child of a service does: streams, directory (which may fail), process group, program."""
    try:
        environment = {"SYSTEMROOT": "C:\\WINDOWS", "PATH": "/c/WINDOWS/system32"}
        environment |= {name: value for name, _, value in (entry.partition("=") for entry in found.get("env", []))}
        environment["PATH"] += ":/bin"
        log = f"/var/log/{found['name']}.log"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for number, descriptor in enumerate(
            (
                os.open(found.get("stdin", os.devnull), os.O_RDONLY),
                os.open(found.get("stdout", log), flags, 0o644),
                os.open(found.get("stderr", log), flags, 0o644),
            )
        ):
            os.dup2(descriptor, number)
        enter(found.get("chdir", "/"))
        os.setpgid(0, 0)
        os.umask(0o022)
        resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.execve(  # noqa: S606 - that is what a service does
            found["path"],
            [found["path"], *split(found.get("args", ""))],
            environment,
        )
    finally:
        os._exit(1)


def enter(directory: str) -> None:
    """Go into a directory, or stay."""
    try:
        os.chdir(directory)
    except OSError:
        return


def split(text: str) -> list[str]:
    """Split at blanks; a quote at the beginning of a word reaches to the next of its kind."""
    words, place = [], 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        stop = text[place] if text[place] in "'\"" else " "
        place += stop != " "
        end = text.find(stop, place)
        end = len(text) if end < 0 else end
        words.append(text[place:end])
        place = end + 1
    return words


def stop(options: dict[str, Any]) -> None:
    """Send the signal, and wait until the service has stopped; one that has is no error."""
    found = service(options["name"])
    if found["state"] == "Stopped":
        return
    if any(other["state"] != "Stopped" for other in dependents(options["name"])):
        fail("ControlService", DEPENDENTS_RUN)
    await_that(lambda: service(options["name"])["state"] != "Start Pending", START_SECONDS)
    target = service(options["name"]).get("target")
    if target is not None:
        send(target, number_of(found.get("termsig", "TERM")))
    if not await_that(lambda: service(options["name"])["state"] == "Stopped", STOP_SECONDS):
        fail("QueryServiceStatus", TIMEOUT)


def send(target: int, number: int) -> None:
    """Send a signal to what may have ended: a process, or by a negative number its group."""
    try:
        os.kill(target, number)
    except ProcessLookupError:
        return


def remove(options: dict[str, Any]) -> None:
    """Stop a service, and take it out of the registry."""
    stop(options)
    os.unlink(key_of(options["name"]))


def query(options: dict[str, Any]) -> None:
    """Say how a service is."""
    found = service(options["name"])
    command = " ".join(filter(None, (found["path"], found.get("args"))))
    facts = {"Service": found["name"], "Display name": found.get("disp"), "Description": found.get("desc")}
    for name, value in (facts | {"Current State": found["state"], "Command": command}).items():
        if value:
            print(f"{name:<20}: {value}")
    print()


def show_all(_: dict[str, Any]) -> None:
    """Name all services."""
    for entry in sorted(os.listdir(f"{REGISTRY}/services")):
        print(service(bytes.fromhex(entry).decode())["name"])


def main() -> None:
    """Do what the arguments say."""
    action, options = parsed()
    actions = {"install": install, "remove": remove, "start": start, "stop": stop, "query": query, "list": show_all}
    if action not in actions:
        refuse("no action")
    actions[action](options)


main()
