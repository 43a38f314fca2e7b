"""What can be done to deployments without pytest."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pytest_nixproc.deployment.leases import Leases
from pytest_nixproc.deployment.recovery import abandoned, reap, take_down, take_over
from pytest_nixproc.deployment.sharing import Run
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.guardian import LEFT_TO_OTHERS
from pytest_nixproc.registry import Registry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 when it failed, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="pytest-nixproc", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    stop = commands.add_parser("stop", help="stop a system that --nixproc-keep has kept, and remove its state")
    stop.add_argument("directory", help="the deployment's directory, as it was printed")
    stop.set_defaults(run=lambda options: stop_kept(options.directory))
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
