"""POSIX shell text: quoting, and the lines that set up a program's execution environment."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.values.commands import RUN_TEXT, TEXT
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File

SWITCH: Final = """
import grp, os, pwd, signal, sys
user, group, *argv = sys.argv[1:]
account = pwd.getpwnam(user)
os.initgroups(user, account.pw_gid)
os.setgid(grp.getgrnam(group).gr_gid)
os.setuid(account.pw_uid)
for number in signal.SIGPIPE, signal.SIGXFSZ:
    signal.signal(number, signal.SIG_DFL)
os.execv(argv[0], argv)
"""
"""Python that switches the user, as root, and execs the program in its arguments; setpriv(1) is for Linux alone."""


def quote(value: str) -> str:
    """Return ``value`` as one word of the shell, in single quotes if it needs them (POSIX.1 XCU 2.2.2)."""
    # shlex leaves a leading ``=`` bare: right, but read as a mistyped comparison by shellcheck (SC1097).
    return f"'={shlex.quote(value[1:] + ' ')[1:-2]}'" if value.startswith("=") else shlex.quote(value)


def words(values: Iterable[str]) -> str:
    """Return ``values`` as words of the shell."""
    return " ".join(quote(value) for value in values)


def comment(value: str) -> str:
    """Return ``value`` as text that stays within one comment line."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", value)


def surroundings(launch: Launch) -> Iterator[str]:
    """Yield the lines that set the umask, the limits and the environment variables."""
    yield f"umask {launch.umask or '0022'}"
    yield from limits(launch)
    for name, value in launch.environment.items():
        yield f"export {name}={quote(value)}"


ULIMIT: Final[Mapping[str, tuple[str, int]]] = {
    "open_files": ("-n", 1),
    "processes": ("-u", 1),
    "core_size": ("-c", 512),
    "stack_size": ("-s", 1024),
    "locked_memory": ("-l", 1024),
    "address_space": ("-v", 1024),
}
"""The options of ulimit, and how many bytes their unit has, in dash, busybox ash, and bash where it is ``sh``."""


def limits(launch: Launch) -> Iterator[str]:
    """Yield the lines that set limits of resources, or leave the shell; they go beyond POSIX."""
    for name, limit in launch.limits.items():
        option, unit = ULIMIT[name]
        value = "unlimited" if limit is None else -(-limit // unit)
        # dash calls that of processes -p, which is something else in bash.
        other = f" 2> /dev/null || ulimit -p {value}" if option == "-u" else ""
        yield "# shellcheck disable=SC3045"
        yield f"ulimit {option} {value}{other} || exit 1"


def initialization(launch: Launch) -> str:
    """Return the command that runs ``initialize``, in a shell of its own that ends at the first failure.

    Everybody can read command lines, so its text is not on that of the shell.
    """
    command = words((launch.target.facts.shell, "-ec", RUN_TEXT, launch.name))
    return f"{TEXT}={quote(launch.initialize)} {command}"


def or_report(launch: Launch, leave: str) -> str:
    """Return the shell text for a failed ``initialize``: a message, and the command that leaves the script."""
    return f'|| {{ echo {quote(f"{launch.name}: initialize failed")} "(status $?)" >&2; {leave}; }}'


def program(launch: Launch, proxy: tuple[str, ...] = (), *, is_ours: bool = True) -> str:
    """Return the command line that execs the program with its niceness and user; the proxy, if any, comes first."""
    if is_ours:
        # Such a manager is as nice as the tests already.
        nice = "" if launch.nice is None else words((launch.target.facts.nice, "-n", str(launch.nice)))
    else:
        nice = whole_niceness(launch)
    return " ".join(filter(None, (words(proxy), nice, words((*switching(launch), *launch.command.argv)))))


def whole_niceness(launch: Launch) -> str:
    """Return the words before a command line that set its absolute nice level, whatever its manager's is.

    nice(1) without a command prints the manager's, on Linux and Cygwin. They are empty where no level has to be set.
    """
    nice = quote(launch.target.facts.nice)
    return "" if launch.niceness is None else f'{nice} -n "$(({launch.niceness} - $({nice})))"'


def switching(launch: Launch) -> tuple[str, ...]:
    """Return the words before a command line that have it run as the process's user, with all of its groups."""
    facts, user, group = launch.target.facts, launch.user, launch.group
    if user is None:
        return ()
    if not facts.setpriv:
        return (facts.python, "-I", "-S", "-c", SWITCH, user, group)
    return (facts.setpriv, f"--reuid={user}", f"--regid={group}", "--init-groups", "--")


def open_to_user(script: File, launch: Launch) -> File:
    """Return a script with the group of its process's user, mode 0750: that user runs it, and so has to read it.

    A script without a user to switch to stays as it is.
    """
    return replace(script, mode=0o750, group=launch.group) if launch.user else script


def open_to_account(script: File, user: str, group: str, target: Target) -> File:
    """Return a script that the account can read which an override has chosen: its group can, and nobody else.

    One of whom nothing is known gets nothing. Where nobody else comes into the deployment's directory, everybody can
    read it: it may be seen elsewhere, in a container.
    """
    if not target.serves_others:
        return replace(script, mode=0o755)
    group = group or primary_group(user, target)
    return replace(script, mode=0o750, group=group) if group else script


def primary_group(user: str, target: Target) -> str:
    """Return the primary group of a user that is named, or given by number; empty where neither is known."""
    if known := target.accounts.users.get(user):
        return str(known.group)
    return next((str(entry.gid) for entry in target.facts.users if user in (entry.name, str(entry.uid))), "")


def working_directory(launch: Launch) -> str:
    """Return the line that enters the working directory."""
    return f"cd -- {quote(launch.directory or '/')}"


def launch_script(launch: Launch, *first: str, is_ours: bool = True, is_proxied: bool = True) -> str:
    """Return a script that sets up a program's execution environment and execs it; the lines ``first`` come first.

    A daemon is kept in the foreground by a proxy: the script execs that as the user who runs the script, and the proxy
    starts the program. Where it is not ``is_proxied``, the script ends when the daemon is in the background. A manager
    that ``is_ours`` was started by us, so that it is as nice as the tests.
    """
    lines = [
        f"#!{launch.target.facts.shell}",
        *first,
        *surroundings(launch),
        *([f"{initialization(launch)} {or_report(launch, 'exit 1')}"] if launch.initialize else []),
        f"{working_directory(launch)} || exit 1",
        f"exec {program(launch, launch.proxy if is_proxied else (), is_ours=is_ours)}",
    ]
    return "\n".join(lines) + "\n"
