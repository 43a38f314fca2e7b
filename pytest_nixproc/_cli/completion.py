"""``nixproc completion``: the script that lets a shell complete commands and their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from pytest_nixproc._cli.api import Result, Say, Subcommand
from pytest_nixproc.errors import NixprocError

FILES: Final = frozenset({"models", "model", "output", "id_resources", "ids"})
DIRECTORIES: Final = frozenset({"directory", "leases"})


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the argument to the parser that names the shell."""
    parser.add_argument("shell", help="bash, zsh, fish, or what else shtab knows")


def run(options: argparse.Namespace, say: Say) -> Result:
    """Print the completion script for a shell, which shtab makes from the parser."""
    if not find_spec("shtab"):
        raise NixprocError("completions are made by shtab, which is not installed", remedy="pip install shtab")
    import shtab

    if options.shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise NixprocError(f"there is no completion for {options.shell!r}", remedy=f"name one of {known}")
    parser = options.parser_for_shell()
    for action in actions(parser):
        if action.dest in FILES | DIRECTORIES:
            action.complete = shtab.FILE if action.dest in FILES else shtab.DIRECTORY  # type: ignore[attr-defined]
    text = shtab.complete(parser, options.shell)
    say(text)
    return Result(facts={"script": text})


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse tells its arguments in no other way, and shtab reads these
        yield action
        for own in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():  # noqa: SLF001
            yield from actions(own)


COMMAND: Final = Subcommand(
    "completion", "shell", "print the script by which a shell completes commands, for its configuration", declare, run
)
