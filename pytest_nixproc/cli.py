"""What can be done to deployments without pytest."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Final

from pytest_nixproc.checks.api import chosen, errors_of
from pytest_nixproc.checks.output import FORMATS
from pytest_nixproc.deployment.leases import Leases, replace_file
from pytest_nixproc.deployment.neighbours import findings_beside
from pytest_nixproc.deployment.planner import Planner, Settings
from pytest_nixproc.deployment.recovery import abandoned, reap, take_down, take_over
from pytest_nixproc.deployment.sharing import Run
from pytest_nixproc.errors import NixprocError, SourceError
from pytest_nixproc.machines.guardian import LEFT_TO_OTHERS
from pytest_nixproc.model.ids import ProvisionalIds, assign
from pytest_nixproc.model.names import names_in
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.registry import Registry
from pytest_nixproc.report.files import write_report
from pytest_nixproc.sources.api import DEFAULT_MANAGER, Arguments, params_in, read_model, source_of

DEFAULT: Final = "%(default)s unless something else is said"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 when it failed, 2 for a wrong call or when nothing can be checked."""
    parser = argparse.ArgumentParser(prog="pytest-nixproc", description=__doc__)
    parser.set_defaults(failure=1)
    commands = parser.add_subparsers(dest="command", required=True)
    stop = commands.add_parser("stop", help="stop a system that --nixproc-keep has kept, and remove its state")
    stop.add_argument("directory", help="the deployment's directory, as it was printed")
    stop.set_defaults(run=lambda options: stop_kept(options.directory))
    add_check(commands)
    reaper = commands.add_parser("reap", help="take down what crashed test runs have left behind")
    reaper.add_argument("--dry-run", action="store_true", help="only say what would be taken down")
    reaper.set_defaults(run=lambda options: reap_all(dry_run=options.dry_run))
    add_assign_ids(commands.add_parser("assign-ids", help="assign the ids that a model in Nix requires, once for all"))
    recover = commands.add_parser("recover", help="take one deployment down; the guardian calls this")
    recover.add_argument("--run", action="store_true", dest="whole_run", help="take down what a run shares")
    recover.add_argument("directory")
    recover.set_defaults(run=lambda options: (recover_run if options.whole_run else recover_one)(options.directory))
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except NixprocError as error:
        print(error, file=sys.stderr)
        status = options.failure
    return status


def add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command that checks models."""
    check = commands.add_parser("check", help="look for conflicts in models, as if they were deployed side by side")
    check.add_argument("models", nargs="+", metavar="MODEL", help="a model file")
    check.add_argument("--manager", default=DEFAULT_MANAGER, metavar="NAME[,NAME...]|all", help=DEFAULT)
    check.add_argument("--privileged", action="store_true", help="as if users were created and switched to")
    check.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="argument for the models")
    check.add_argument("--select", default="", metavar="CODE[,CODE...]", help="the only rules to apply")
    check.add_argument("--ignore", default="", metavar="CODE[,CODE...]", help="rules not to apply")
    check.add_argument("--format", default="text", choices=FORMATS, help=DEFAULT)
    check.add_argument("--output", default="", metavar="FILE", help="where to write the findings, not to the terminal")
    check.set_defaults(run=check_models, failure=2)


def check_models(options: argparse.Namespace) -> int:
    """Write what the rules find in models, without starting anything; return 1 if any finding is an error."""
    registry = Registry()
    rules = chosen(registry.rules, names_in(options.select), names_in(options.ignore))
    names = list(registry.managers) if options.manager == "all" else names_in(options.manager)
    settings = Settings(params=params_in(options.param), privileged=options.privileged)
    loads = [partial(load_model, path, registry) for path in options.models]
    with closing(registry.machine("host")()) as machine:
        planners = [Planner(registry.manager(name), machine, rules, settings) for name in names]
        findings = findings_beside([(planner, load) for load in loads for planner in planners], Leases())
    text = FORMATS[options.format](findings, rules)
    if options.output:
        write_report(options.output, text)
    else:
        print(text)
    return 1 if errors_of(findings) else 0


def load_model(path: str, registry: Registry, arguments: Arguments) -> ProcessesModel:
    """Read a model file."""
    return read_model(path, arguments, registry.sources)


def add_assign_ids(parser: argparse.ArgumentParser) -> None:
    """Declare what ``assign-ids`` wants to be told."""
    parser.add_argument("model", help="the model's file")
    parser.add_argument(
        "--id-resources", default="", metavar="FILE", help="the pools, if not idresources.nix beside it"
    )
    parser.add_argument("--ids", default="", metavar="FILE", help="the ids so far, if not ids.nix beside it")
    parser.add_argument(
        "--output", default="", metavar="FILE", help="where to write; - prints [default: where ids are]"
    )
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="an argument for the model")
    parser.add_argument(
        "--manager", default=DEFAULT_MANAGER, metavar="NAME", help="the manager that the model is told of"
    )
    parser.set_defaults(run=assign_ids)


def assign_ids(options: argparse.Namespace) -> int:
    """Write down ids for all instances of a model that require some; those that they have are retained."""
    registry = Registry()
    source = source_of(options.model, registry.sources)
    if source.ids is None:
        remedy = "models in Nix do"
        raise SourceError(f"{options.model}: models of this kind keep no ids in a file", remedy=remedy)
    settings = Settings(
        params=params_in(options.param), id_resources=options.id_resources, ids_file=options.ids, privileged=True
    )
    with closing(registry.machine("host")()) as machine:
        planner = Planner(registry.manager(options.manager), machine, registry.rules, settings)
        arguments = replace(planner.arguments(planner.choose_site()), state=StateDirs.under(), ids=ProvisionalIds())
        model = source.read(options.model, arguments)
    text = source.ids.text(assign(model.pools, model.id_requests, model.recorded_ids, lambda _, __: False))
    if options.output == "-":
        print(text)
        return 0
    path = os.path.realpath(options.output or source.ids.file(options.model, arguments))
    replace_text(path, text)
    print(f"wrote {path}")
    return 0


def replace_text(path: str, text: str) -> None:
    """Write a user's file at once, with the mode that it had; raises :class:`~pytest_nixproc.errors.NixprocError`."""
    try:
        mode = os.stat(path).st_mode if os.path.exists(path) else 0o666 & ~current_umask()
        replace_file(path, text)
        os.chmod(path, mode)
    except OSError as error:
        raise NixprocError(f"cannot write {path}: {error.strerror}") from error


def current_umask() -> int:
    """Return which modes new files do not get; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def stop_kept(directory: str) -> int:
    """Stop what still runs of a kept deployment, by its journal; one that a test run uses is that run's to stop."""
    root, leases = os.path.abspath(directory), Leases()
    for claim in leases.claims():
        users = [owner.pid for owner in claim.users if owner.is_alive]
        if claim.root == root and users and not claim.kept:
            raise NixprocError(f"{root} is in use by process {users[0]}", remedy="end that test run, and it stops it")
    take_down(root, Registry(), leases)
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
