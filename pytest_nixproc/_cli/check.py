"""``nixproc check``: the rules about models, without starting anything."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Final

from pytest_nixproc._cli.api import DEFAULT, ExitStatus, Result, Say, Subcommand
from pytest_nixproc._persistence.files import write_report
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.other_deployments import findings_beside
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._registry import Registry
from pytest_nixproc.checks.api import chosen
from pytest_nixproc.checks.output import FORMATS, facts_of
from pytest_nixproc.model.context import DEFAULT_MANAGER
from pytest_nixproc.model.names import names_in
from pytest_nixproc.sources.api import params_in, read_model
from pytest_nixproc.values.findings import errors_of, masked
from pytest_nixproc.values.masking import Secrets


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser: the models, how to check them, and where findings go."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a model file")
    parser.add_argument("--manager", default=DEFAULT_MANAGER, metavar="NAME[,NAME...]|all", help=DEFAULT)
    parser.add_argument("--privileged", action="store_true", help="as if users were created and switched to")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="argument for the models")
    parser.add_argument("--select", default="", metavar="CODE[,CODE...]", help="the only rules to apply")
    parser.add_argument("--ignore", default="", metavar="CODE[,CODE...]", help="rules not to apply")
    parser.add_argument("--format", default="text", choices=FORMATS, help=DEFAULT)
    parser.add_argument("--output", default="", metavar="FILE", help="where to write the findings, not to the terminal")


def run(options: argparse.Namespace, say: Say) -> Result:
    """Write the findings of the rules about models; any error among them fails the command."""
    registry = Registry()
    rules = chosen(registry.rules, names_in(options.select), names_in(options.ignore))
    names = list(registry.managers) if options.manager == "all" else names_in(options.manager)
    secrets: set[str] = set()
    settings = Settings(params=params_in(options.param), privileged=options.privileged, confide=secrets.update)
    loads = [partial(read_model, path, sources=registry.sources) for path in options.models]
    with registry.machine("host")() as machine:
        planners = [Planner(registry.manager(name), machine, rules, settings, registry.manager_names) for name in names]
        found = findings_beside([(planner, load) for load in loads for planner in planners], Leases())
    findings = [masked(finding, Secrets(frozenset(secrets)).masked) for finding in found]
    text = FORMATS[options.format](findings, rules)
    if options.output:
        write_report(options.output, text)
    else:
        say(text)
    status = ExitStatus.FAILED if errors_of(findings) else ExitStatus.DONE
    return Result(status, [facts_of(finding) for finding in findings])


COMMAND: Final = Subcommand(
    "check",
    "models",
    "look for conflicts in models, as if they were deployed side by side",
    declare,
    run,
    failure=ExitStatus.WRONG_CALL,
)
