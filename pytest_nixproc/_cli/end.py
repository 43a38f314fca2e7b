"""``nixproc end``: the end of a deployment that ``--nixproc-keep`` has kept."""

from __future__ import annotations

import argparse
from typing import Final

from pytest_nixproc._cli.api import Result, Say, Subcommand
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._persistence.owners import owners_of
from pytest_nixproc._recovery import named_directory, take_down
from pytest_nixproc._registry import Registry
from pytest_nixproc.errors import Busy


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the argument to the parser that names the directory of the kept deployment."""
    parser.add_argument("directory", help="the deployment's directory, as it was printed")


def run(options: argparse.Namespace, say: Say) -> Result:
    """Stop a kept deployment, as far as it still runs, by its journal; refuse one that a test run uses."""
    root, leases = named_directory(options.directory).root, Leases()
    lease, owners = leases.lease_of(root), owners_of(root)
    if lease is None and owners is not None and not owners.kept:
        lease = owners.lease(root)
    users = [owner.pid for owner in lease.users if owner.is_alive] if lease else []
    if lease and users and not lease.kept:
        raise Busy(f"{root} is in use by process {users[0]}", remedy="end that test run, and it stops it")
    take_down(root, Registry(), leases)
    say(f"stopped, and removed {options.directory}")
    return Result(facts={"ended": root})


COMMAND: Final = Subcommand(
    "end", "deployments of tests", "stop a system that --nixproc-keep has kept, and remove its state", declare, run
)
