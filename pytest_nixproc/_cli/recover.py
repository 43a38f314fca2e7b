"""The command that guardians call when their test process is gone; nobody else does."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Final

from pytest_nixproc._cli.api import ExitStatus, Result, Say, Subcommand
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._persistence.owners import owners_of
from pytest_nixproc._persistence.shared_deployments import PytestRun
from pytest_nixproc._recovery import lost, reap
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.guardian import LEFT_TO_OTHERS


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser: the deployment or test run, and the directory of the leases."""
    parser.add_argument("--run", action="store_true", dest="whole_run", help="take down what a run shares")
    parser.add_argument("--alone", action="store_true", help="the deployment of one process: it needs no lease")
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
    if lease is None:
        return take_down_lost(directory, leases, is_alone=options.alone)
    if lease.kept:
        return Result()
    roots = PytestRun(leases, lease.run).recover() if lease.run else [directory]
    take_down_those(roots, leases)
    if directory not in roots:
        return Result(ExitStatus(LEFT_TO_OTHERS))
    return result_for(directory, leases)


def take_down_lost(directory: str, leases: Leases, *, is_alone: bool) -> Result:
    """Take down a deployment whose lease somebody has removed; what others still use is left to them."""
    owners = owners_of(directory)
    if not is_alone and owners and any(user.is_alive for user in owners.users):
        return Result(ExitStatus(LEFT_TO_OTHERS))
    registry = Registry()
    if lease := lost(directory, is_alone=is_alone):
        reap(lease, registry, leases, is_heard=False)
    if is_alone:
        # Most deployments have their leases, and processes of theirs wait for the end of this one.
        from pytest_nixproc._orphans import orphans

        for orphan in orphans(registry.managers.values(), leases):
            if orphan.belonging.root == directory and not orphan.doubt:
                orphan.remove()
    return result_for(directory, leases)


def take_down_those(roots: Collection[str], leases: Leases) -> None:
    """Take down deployments that were given up."""
    for found in leases.all():
        if found.root in roots:
            reap(found, Registry(), leases, is_heard=False)


def result_for(directory: str, leases: Leases) -> Result:
    """Return whether a deployment is gone: if not, the guardian tries it again when it has ended what is below it.

    Of one with a rest that cannot be removed, all else is gone.
    """
    lease = leases.lease_of(directory)
    return Result(ExitStatus.INCONSISTENT) if lease and not lease.rest else Result()


COMMAND: Final = Subcommand("_recover", "", "take one deployment down; the guardian calls this", declare, run)
