"""POSIX shell text: quoting, and the lines that give a program its surroundings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Final

from pytest_nixproc.managers.api import Target
from pytest_nixproc.model.process import Command, ManagedProcess

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
"""What an interpreter does as root before it becomes the program of its command line; setpriv(1) is for Linux alone."""


def quote(value: str) -> str:
    """Return ``value`` as one word of the shell: single quotes keep every other byte (POSIX.1 XCU 2.2.2)."""
    # shlex leaves a leading ``=`` bare: right, but read as a mistyped comparison by shellcheck (SC1097).
    return f"'={shlex.quote(value[1:] + ' ')[1:-2]}'" if value.startswith("=") else shlex.quote(value)


def words(values: Iterable[str]) -> str:
    """Return ``values`` as words of the shell."""
    return " ".join(quote(value) for value in values)


def comment(value: str) -> str:
    """Return ``value`` as text that stays within one comment line."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", value)


def surroundings(process: ManagedProcess, environment: dict[str, str]) -> Iterator[str]:
    """Yield the lines that set umask and environment."""
    yield f"umask {process.umask or '0022'}"
    for name, value in environment.items():
        yield f"export {name}={quote(value)}"


def initialization(process: ManagedProcess, target: Target) -> str:
    """Return the words that run ``initialize``, in a shell of its own that ends at the first failure."""
    return words((target.facts.shell, "-ec", process.initialize, process.name))


def or_report(process: ManagedProcess, leave: str) -> str:
    """Return what follows a failed ``initialize``: a message, and the command that leaves the script."""
    return f'|| {{ echo {quote(f"{process.name}: initialize failed")} "(status $?)" >&2; {leave}; }}'


def program(command: Command, process: ManagedProcess, target: Target, proxy: tuple[str, ...] = ()) -> str:
    """Return the words that become the program: niceness and user are changed on the way, behind a proxy's back."""
    prefix = switching(process, target)
    if process.nice is not None:
        prefix = (target.facts.nice, "-n", str(process.nice), *prefix)
    return words((*proxy, *prefix, *command.argv))


def switching(process: ManagedProcess, target: Target) -> tuple[str, ...]:
    """Return the words before a command line that have it run as the process's user, with all of its groups."""
    user = target.user_of(process)
    if user is None:
        return ()
    group = primary_group(process, user, target)
    if not target.facts.setpriv:
        return (target.facts.python, "-I", "-S", "-c", SWITCH, user, group)
    return (target.facts.setpriv, f"--reuid={user}", f"--regid={group}", "--init-groups", "--")


def primary_group(process: ManagedProcess, user: str, target: Target) -> str:
    """Return the group that a user has on the machine, else in the model; others have one of their own name."""
    if known := target.accounts.users.get(user):
        return str(known.group)
    account = process.credentials.users.get(user)
    return account.group if account and account.group else user


def working_directory(process: ManagedProcess) -> str:
    """Return the line that enters the working directory."""
    return f"cd -- {quote(process.directory or '/')}"


def launch_script(
    process: ManagedProcess, command: Command, target: Target, key: str, *first: str, proxy: tuple[str, ...] = ()
) -> str:
    """Return a script that sets up everything around a program and then becomes it; ``first`` are lines before that.

    With a ``proxy``, it becomes that, as who runs the script, and the proxy starts the program.
    """
    lines = [
        f"#!{target.facts.shell}",
        *first,
        *surroundings(process, target.environment(process, key)),
        *([f"{initialization(process, target)} {or_report(process, 'exit 1')}"] if process.initialize else []),
        f"{working_directory(process)} || exit 1",
        f"exec {program(command, process, target, proxy)}",
    ]
    return "\n".join(lines) + "\n"
