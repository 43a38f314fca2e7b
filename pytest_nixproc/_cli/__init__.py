"""The command ``nixproc``: operations on models and deployments that need no pytest."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from pytest_nixproc._cli import assign_ids, check, completion, end, reap, recover
from pytest_nixproc._cli.api import ExitStatus, Result, Subcommand
from pytest_nixproc.errors import Busy, NixprocError, TeardownError, Unreachable

COMMANDS: Final[Sequence[Subcommand]] = (
    check.COMMAND,
    assign_ids.COMMAND,
    end.COMMAND,
    end.FORMER,
    reap.COMMAND,
    completion.COMMAND,
    recover.COMMAND,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return one of the :class:`~pytest_nixproc._cli.api.ExitStatus`."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser(called=next(iter(words), "")).parse_args(words)
    try:
        result = carry_out(options.command, options)
        if options.json:
            print(json.dumps(result.facts, indent=2))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough; what Python would say about it at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    return result.status


def carry_out(command: Subcommand, options: argparse.Namespace) -> Result:
    """Run a command; its error is printed, unless the result is, and says how things are left."""
    try:
        return command.run(options, silent if options.json else print)
    except NixprocError as error:
        if not options.json:
            print(error, file=sys.stderr)
        facts = {"error": error.brief, "details": error.details, "fix": error.remedy}
        return Result(status_after(error, command), facts)


def parser(*, called: str = "", is_for_shell: bool = False) -> argparse.ArgumentParser:
    """Return the parser of all commands that people call, and of any other one only if it is ``called``."""
    made = argparse.ArgumentParser(
        prog="nixproc", epilog="\n".join(listed()), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--version", action=ShowVersion, nargs=0, help="show program's version number and exit")
    made.set_defaults(parser_for_shell=partial(parser, is_for_shell=True))
    parsers = made.add_subparsers(metavar="COMMAND", required=True)
    for command in (command for command in COMMANDS if command.group or command.name == called):
        # Where it lists commands, argparse knows no groups: the help has a list of its own.
        listing: dict[str, Any] = {"help": command.summary} if is_for_shell else {}
        own = parsers.add_parser(command.name, description=command.summary, **listing)
        own.add_argument("--json", action="store_true", help="print one JSON value in place of text")
        own.set_defaults(command=command)
        command.declare(own)
    return made


class ShowVersion(argparse.Action):
    """The option that prints the version; only it looks that up, because the modules for it are slow to import."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print the version, and exit."""
        from pytest_nixproc import __version__

        print(f"pytest-nixproc {__version__}")
        parser.exit()


def listed() -> Iterator[str]:
    """Yield the lines of the help that list the commands by group."""
    for group in dict.fromkeys(command.group for command in COMMANDS if command.group):
        yield f"{group}:"
        yield from (f"  {command.name:<12}{command.summary}" for command in COMMANDS if command.group == group)


def silent(_: str) -> None:
    """Print nothing: the result is printed as JSON."""


def status_after(error: NixprocError, command: Subcommand) -> ExitStatus:
    """Return the exit status of a command that an error has ended."""
    if isinstance(error, Busy):
        return ExitStatus.BUSY
    return ExitStatus.INCONSISTENT if isinstance(error, TeardownError | Unreachable) else command.failure
