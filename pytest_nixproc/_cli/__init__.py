"""The command ``nixproc``: operations on models and deployments that need no pytest.

Only the module of the command that is called is imported: guardians wait for theirs, with processes that are to end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NoReturn

from pytest_nixproc._cli.api import ExitStatus, Result, Subcommand
from pytest_nixproc.errors import Busy, NixprocError, TeardownError, Unreachable

MODULES: Final[Mapping[str, str]] = {
    "check": "check",
    "assign-ids": "assign_ids",
    "end": "end",
    "stop": "end",
    "reap": "reap",
    "completion": "completion",
    "_recover": "recover",
}
"""The modules of the commands by their names; ``stop`` is a former one, as instances are going to be stopped by it."""


def command_of(name: str) -> Subcommand:
    """Return a command, whose module is imported; people do not call one by a former name."""
    command: Subcommand = importlib.import_module(f"{__name__}.{MODULES[name]}").COMMAND
    return command if command.name == name else replace(command, name=name, group="")


def all_commands() -> list[Subcommand]:
    """Return all commands, those that people do not call among them."""
    return [command_of(name) for name in MODULES]


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
    """Return the parser of the command that is ``called``, or else of all that people call."""
    commands = [command_of(called)] if called in MODULES else [one for one in all_commands() if one.group]
    made = argparse.ArgumentParser(
        prog="nixproc", epilog="\n".join(listed(commands)), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--version", action=ShowVersion, nargs=0, help="show program's version number and exit")
    made.set_defaults(parser_for_shell=partial(parser, is_for_shell=True))
    parsers = made.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
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


def listed(commands: Sequence[Subcommand]) -> Iterator[str]:
    """Yield the lines of the help that list commands by group."""
    for group in dict.fromkeys(command.group for command in commands):
        yield f"{group}:"
        yield from (f"  {command.name:<12}{command.summary}" for command in commands if command.group == group)


def silent(_: str) -> None:
    """Print nothing: the result is printed as JSON."""


def status_after(error: NixprocError, command: Subcommand) -> ExitStatus:
    """Return the exit status of a command that an error has ended."""
    if isinstance(error, Busy):
        return ExitStatus.BUSY
    return ExitStatus.INCONSISTENT if isinstance(error, TeardownError | Unreachable) else command.failure
