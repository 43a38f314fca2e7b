"""Where the tools of s6, s6-rc and execline are, and what is in the way without them."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final

from pytest_nixproc.machines.api import Facts, Machine

TOOLS: Final[dict[str, tuple[str, ...]]] = {
    "s6": ("s6-svscan", "s6-supervise", "s6-svc", "s6-svstat"),
    "execline": ("execlineb", "execline-cd", "redirfd"),
    "s6-rc": ("s6-rc-compile", "s6-rc-init", "s6-rc", "s6-rc-update"),
}
"""Programs that are called, by the package that has them."""

OTHER_DIRECTORIES: Final = ("/usr/lib/execline/bin",)
"""Where Debian has the commands of execline that are named as a shell's own."""

REMEDIES: Final = {
    "s6": "install s6 (Debian, Ubuntu, Alpine, Arch: package s6)",
    "execline": "install execline (Debian, Ubuntu, Alpine, Arch: package execline)",
    "s6-rc": "install s6-rc (Alpine, Arch: package s6-rc; Debian 12 has none: build it, https://skarnet.org/software/s6-rc/)",
}


def search_path(machine: Machine) -> str:
    """Return the ``PATH`` for the manager's own tools: on this host, that of who runs the tests comes first."""
    own = () if machine.throwaway else tuple(filter(os.path.isabs, os.environ.get("PATH", "").split(os.pathsep)))
    return os.pathsep.join(dict.fromkeys((*own, *machine.facts.base_path, *OTHER_DIRECTORIES)))


def obstacle(machine: type[Machine]) -> str:
    """Tell which tool is missing, with the remedy; a throwaway machine has those of the system only."""
    if sys.platform != "linux":
        return f"s6-rc is supported on Linux, and this is {sys.platform}"
    own = () if machine.throwaway else tuple(os.environ.get("PATH", "").split(os.pathsep))
    path = os.pathsep.join((*own, *Facts.base_path, *OTHER_DIRECTORIES))
    for package, tools in TOOLS.items():
        if missing := next((tool for tool in tools if not shutil.which(tool, path=path)), ""):
            return f"{missing} is not installed: {REMEDIES[package]}"
    return ""
