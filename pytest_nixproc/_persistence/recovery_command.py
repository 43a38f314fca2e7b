"""The command that takes a deployment down when its test process is gone."""

from __future__ import annotations

import sys

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc.machines.package import places_of_packages, python_program


def recovery_command(root: str, leases: Leases, *options: str) -> list[str]:
    """Return the command that takes a deployment down when its test process is gone, without any help of that.

    Nothing beside the tests can be in its way, whatever it is called.
    """
    argv = ["_recover", f"--leases={leases.directory}", *options, root]
    return [sys.executable, "-I", "-c", python_program("_cli", argv, searched=places_of_packages())]
