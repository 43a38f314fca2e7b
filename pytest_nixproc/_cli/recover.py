"""The command that guardians call when their test process is gone; nobody else does."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Final

from pytest_nixproc._cli.api import ExitStatus, Result, Say, Subcommand
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._persistence.shared_deployments import PytestRun
from pytest_nixproc._recovery import reap
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.guardian import LEFT_TO_OTHERS


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser: the deployment or test run, and the directory of the leases."""
    parser.add_argument("--run", action="store_true", dest="whole_run", help="take down what a run shares")
    parser.add_argument("--leases", metavar="DIR", help="where the leases are; the guardian has no environment")
    parser.add_argument("directory")


def run(options: argparse.Namespace, _: Say) -> Result:
    """Take down a deployment of a test process that has ended, or those that a run of tests has shared."""
    leases = Leases(options.leases)
    directory = options.directory
    if options.whole_run:
        # If a member of the run lives, it will do it.
        take_down_those(PytestRun(leases, directory).recover(), leases)
        return Result()
    lease = leases.lease_of(directory)
    if lease is None or lease.kept:
        return Result()
    roots = PytestRun(leases, lease.run).recover() if lease.run else [directory]
    take_down_those(roots, leases)
    return Result() if directory in roots else Result(ExitStatus(LEFT_TO_OTHERS))


def take_down_those(roots: Collection[str], leases: Leases) -> None:
    """Take down deployments that were given up."""
    for found in leases.all():
        if found.root in roots:
            reap(found, Registry(), leases)


COMMAND: Final = Subcommand("_recover", "", "take one deployment down; the guardian calls this", declare, run)
