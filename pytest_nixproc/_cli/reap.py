"""``nixproc reap``: everything that crashed test runs have left behind."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from pytest_nixproc._cli.api import ExitStatus, Result, Say, Subcommand
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._recovery import abandoned, reap, take_over
from pytest_nixproc._registry import Registry


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the option to the parser to only show what would be taken down."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would be taken down")


def run(options: argparse.Namespace, say: Say) -> Result:
    """Take down abandoned deployments, whose users and guardian are gone; find them by lease, not by process name.

    Each is taken down by its journal.
    """
    leases = Leases()
    found = list(abandoned(leases)) if options.dry_run else take_over(leases)
    problems: dict[str, list[str]] = {}
    for lease in found:
        say(f"{'would take down' if options.dry_run else 'taking down'} {lease.root}")
        problems[lease.root] = [] if options.dry_run else reap(lease, Registry(), leases)
        for problem in problems[lease.root]:
            say(f"  {problem}")
    left = [] if options.dry_run else [lease.root for lease in found if leases.lease_of(lease.root)]
    if not options.dry_run:
        leases.leave()
    unreadable = leases.corrupt()
    for path in unreadable:
        print(f"cannot read {path}: remove it when no test runs", file=sys.stderr)
    if not found:
        say("nothing is left of earlier runs")
    status = ExitStatus.INCONSISTENT if left else ExitStatus.FAILED if unreadable else ExitStatus.DONE
    return Result(status, {"deployments": problems, "left": left, "unreadable": unreadable})


COMMAND: Final = Subcommand(
    "reap", "deployments of tests", "take down what crashed test runs have left behind", declare, run
)
