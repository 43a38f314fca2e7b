"""The tools of s6, s6-rc and execline: where they are, how they are run, and which are missing."""

from __future__ import annotations

import os
import shutil
import sys
from functools import cached_property
from typing import Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn, describe_status
from pytest_nixproc.values.machine import Facts
from pytest_nixproc.values.target import Target

ASK_SECONDS: Final = 10.0

RECORD: Final = "s6-tools"
"""The file that says where the tools are: who takes a deployment down may have another ``PATH``."""

PRIVATELY: Final = 'umask 077 && exec "$@"'
"""Runs a tool: s6-rc makes copies of definitions that everybody can read, whatever the modes of these are."""

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
    """Return the ``PATH`` for the manager's own tools; on this host, it begins with the ``PATH`` of the tests."""
    own = () if machine.throwaway else tuple(filter(os.path.isabs, os.environ.get("PATH", "").split(os.pathsep)))
    return os.pathsep.join(dict.fromkeys((*own, *machine.facts.base_path, *OTHER_DIRECTORIES)))


def unavailable_reason(machine: type[Machine]) -> str:
    """Return which tool is missing, with the remedy; on a throwaway machine only system-wide tools count."""
    if sys.platform != "linux":
        return f"s6-rc is supported on Linux, and this is {sys.platform}"
    own = () if machine.throwaway else tuple(os.environ.get("PATH", "").split(os.pathsep))
    path = os.pathsep.join((*own, *Facts.base_path, *OTHER_DIRECTORIES))
    for package, tools in TOOLS.items():
        if missing := next((tool for tool in tools if not shutil.which(tool, path=path)), ""):
            return f"{missing} is not installed: {REMEDIES[package]}"
    return ""


class Toolbox:
    """The tools of a deployment, found by the record of where they are."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target
        self.log = f"{target.state.log_dir}/s6-svscan.log"
        """Where the supervision tree writes by itself, about tools that have asked it too."""

    def record(self) -> None:
        """Write down where the tools are, and have scripts find execlineb."""
        self.machine.files.write(f"{self.target.directory}/{RECORD}", search_path(self.machine))
        self.machine.files.link(f"{self.target.state.runtime_dir}/execlineb", self.path("execlineb"))

    @cached_property
    def _search_path(self) -> str:
        """The search path of the tools."""
        content = self.machine.files.read(f"{self.target.directory}/{RECORD}")
        return content.decode(errors="surrogateescape") if content else search_path(self.machine)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which tools are run."""
        return {"PATH": self._search_path, **self.target.tags}

    def path(self, name: str) -> str:
        """Return the path of a tool; for a missing tool a path that does not exist, so that errors name the tool."""
        candidates = (f"{directory}/{name}" for directory in self._search_path.split(":"))
        return next(filter(self.machine.files.exists, candidates), f"/usr/bin/{name}")

    def ask(self, deadline: Deadline, *argv: str) -> tuple[int | None, str]:
        """Run a command; return its status and output."""
        return self.machine.processes.capture(Spawn(argv, self.environment), deadline)

    def shell(self, deadline: Deadline, text: str, *words: str) -> tuple[int | None, str]:
        """Run shell text with arguments."""
        return self.ask(deadline, self.machine.facts.shell, "-c", text, "sh", *words)

    def succeed(self, deadline: Deadline, tool: str, *words: str) -> None:
        """Run a tool, which must succeed."""
        status, output = self.shell(deadline, PRIVATELY, self.path(tool), *words)
        if status != 0:
            ending = "does not come to an end" if status is None else describe_status(status)
            raise MachineError(f"{tool} {ending}", details=f"{output[-OUTPUT_TAIL:]}\n{self.said()}".strip())

    def said(self) -> str:
        """Return the end of the supervision tree's own output."""
        return (self.machine.files.read(self.log) or b"").decode(errors="replace")[-OUTPUT_TAIL:].rstrip()


def milliseconds(deadline: Deadline) -> str:
    """Return the milliseconds until a deadline, at least 1: for the tools, 0 means for ever."""
    return str(max(1, round(deadline.remaining * 1000)))
