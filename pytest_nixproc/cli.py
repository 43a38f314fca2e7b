"""What can be done to deployments without pytest."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

from pytest_nixproc.checks.api import chosen, errors_of
from pytest_nixproc.checks.output import FORMATS
from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.neighbours import findings_beside
from pytest_nixproc.deployment.planner import Planner, Settings
from pytest_nixproc.deployment.recovery import abandoned, reap, take_down, take_over
from pytest_nixproc.deployment.sharing import Run
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.guardian import LEFT_TO_OTHERS
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.registry import Registry
from pytest_nixproc.sources.api import Arguments, params_in, read_model

DEFAULT: Final = "%(default)s unless something else is said"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 when it failed, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="pytest-nixproc", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    stop = commands.add_parser("stop", help="stop a system that --nixproc-keep has kept, and remove its state")
    stop.add_argument("directory", help="the deployment's directory, as it was printed")
    stop.set_defaults(run=lambda options: stop_kept(options.directory))
    add_check(commands)
    reaper = commands.add_parser("reap", help="take down what crashed test runs have left behind")
    reaper.add_argument("--dry-run", action="store_true", help="only say what would be taken down")
    reaper.set_defaults(run=lambda options: reap_all(dry_run=options.dry_run))
    recover = commands.add_parser("recover", help="take one deployment down; the guardian calls this")
    recover.add_argument("--run", action="store_true", dest="whole_run", help="take down what a run shares")
    recover.add_argument("directory")
    recover.set_defaults(run=lambda options: (recover_run if options.whole_run else recover_one)(options.directory))
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except NixprocError as error:
        print(error, file=sys.stderr)
        return 1
    return status


def add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command that checks models."""
    check = commands.add_parser("check", help="look for conflicts in models, as if they were deployed side by side")
    check.add_argument("models", nargs="+", metavar="MODEL", help="a model file")
    check.add_argument("--manager", default="supervisord", metavar="NAME[,NAME...]|all", help=DEFAULT)
    check.add_argument("--privileged", action="store_true", help="as if users were created and switched to")
    check.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="argument for the models")
    check.add_argument("--select", default="", metavar="CODE[,CODE...]", help="the only rules to apply")
    check.add_argument("--ignore", default="", metavar="CODE[,CODE...]", help="rules not to apply")
    check.add_argument("--format", default="text", choices=FORMATS, help=DEFAULT)
    check.add_argument("--output", default="", metavar="FILE", help="where to write the findings, not to the terminal")
    check.set_defaults(run=check_models)


def check_models(options: argparse.Namespace) -> int:
    """Write what the rules find in models, without starting anything; return 1 if any finding is an error."""
    registry = Registry()
    rules = chosen(registry.rules, names_in(options.select), names_in(options.ignore))
    names = list(registry.managers) if options.manager == "all" else names_in(options.manager)
    settings = Settings(params=params_in(options.param), privileged=options.privileged)
    machine = registry.machine("host")()
    planners = [Planner(registry.manager(name), machine, rules, settings) for name in names]
    loads = [partial(load_model, path, registry) for path in options.models]
    findings = findings_beside([(planner, load) for load in loads for planner in planners], Leases())
    write(FORMATS[options.format](findings, rules), options.output)
    return 1 if errors_of(findings) else 0


def load_model(path: str, registry: Registry, arguments: Arguments) -> ProcessesModel:
    """Read a model file."""
    return read_model(path, arguments, registry.sources)


def names_in(text: str) -> list[str]:
    """Return the names of a list that is separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def write(text: str, path: str) -> None:
    """Write a report into a file, or to the terminal."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    else:
        print(text)


def stop_kept(directory: str) -> int:
    """Stop what still runs of a kept deployment, by its journal."""
    take_down(os.path.abspath(directory), Registry(), Leases())
    print(f"stopped, and removed {directory}")
    return 0


def reap_all(*, dry_run: bool) -> int:
    """Take down every deployment whose users and guardian are gone, by lease and journal, never by name."""
    leases = Leases()
    found = list(abandoned(leases)) if dry_run else take_over(leases)
    for claim in found:
        print(f"{'would take down' if dry_run else 'taking down'} {claim.root}")
        for problem in [] if dry_run else reap(claim, Registry(), leases):
            print(f"  {problem}")
    if not dry_run:
        leases.leave()
    for path in leases.corrupt():
        print(f"cannot read {path}: remove it when no test runs", file=sys.stderr)
    if not found:
        print("nothing is left of earlier runs")
    return 1 if leases.corrupt() else 0


def recover_run(identity: str) -> int:
    """Take down what the members of a run share, if none of them lives; else they will do it."""
    leases = Leases()
    roots = Run(leases, identity).recover()
    for found in leases.claims():
        if found.root in roots:
            reap(found, Registry(), leases)
    return 0


def recover_one(directory: str) -> int:
    """Take down one deployment whose test process is gone."""
    leases = Leases()
    claim = leases.claim_of(directory)
    if claim is None or claim.kept:
        return 0
    roots = Run(leases, claim.run).recover() if claim.run else [directory]
    for found in leases.claims():
        if found.root in roots:
            reap(found, Registry(), leases)
    return 0 if directory in roots else LEFT_TO_OTHERS
