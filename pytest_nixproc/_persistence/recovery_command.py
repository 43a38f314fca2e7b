"""The command that takes a deployment down when its test process is gone."""

from __future__ import annotations

import sys
from typing import Final

from pytest_nixproc._persistence.leases import Leases

BOOT: Final = "import sys; sys.path[:] = {path!r}; from pytest_nixproc._cli import main; sys.exit(main({argv!r}))"


def recovery_command(root: str, leases: Leases, *options: str) -> list[str]:
    """Return the command that takes a deployment down when its test process is gone, without any help of that."""
    argv = ["_recover", f"--leases={leases.directory}", *options, root]
    return [sys.executable, "-I", "-c", BOOT.format(path=[path for path in sys.path if path], argv=argv)]
