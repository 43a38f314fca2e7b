"""The command line: what can be done to deployments without pytest."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pytest_nixproc.deployment.recovery import take_down
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.registry import Registry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 when it failed, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="pytest-nixproc", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    stop = commands.add_parser("stop", help="stop a system that --nixproc-keep has kept, and remove its state")
    stop.add_argument("directory", help="the deployment's directory, as it was printed")
    stop.set_defaults(run=lambda options: stop_kept(options.directory))
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except NixprocError as error:
        print(error, file=sys.stderr)
        return 1
    return status


def stop_kept(directory: str) -> int:
    """Stop what still runs of a kept deployment, by its journal."""
    take_down(os.path.abspath(directory), Registry())
    print(f"stopped, and removed {directory}")
    return 0
