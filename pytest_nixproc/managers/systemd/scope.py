"""Scopes: which systemd runs the units of a deployment, and how it is asked.

A machine that is made for the deployment has its own; an ordinary user who is logged in has one for the session; else
the deployment gets one of its own. Its record in the deployment's directory leads anybody else to the same one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Final, Literal, Self

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.systemd.generator import SOCKET, prefix
from pytest_nixproc.managers.systemd.launcher import CGROUP_MOUNTS, PRIVATE_UNITS
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.value import Value

RECORD: Final = "systemd-home"
SYSTEMCTL: Final = "/usr/bin/systemctl"
"""Where it would be: what is started without being there fails with its name."""

SYSTEM_UNITS: Final = "/run/systemd/system"


class SystemdScope(Value):
    """The systemd that runs a deployment's units: the machine's, the session's, or a private one."""

    kind: Literal["system", "session", "private"]
    runtime_directory: str = ""
    """The directory in which a session's or a private systemd has its socket; empty for the machine's."""

    cgroup: str = ""
    """The directory of a private systemd's control group; empty for the others."""

    @classmethod
    def choose(cls, machine: Machine, target: Target) -> Self:
        """Choose the scope of a deployment."""
        if machine.throwaway:
            return cls("system")
        if machine.facts.account.uid and not machine.network.connection_problem(f"{session_directory()}/{SOCKET}"):
            return cls("session", session_directory())
        return cls("private", target.state.runtime_dir, own_cgroup(machine, target))

    @classmethod
    def recall(cls, machine: Machine, target: Target) -> Self | None:
        """Return the recorded scope of a deployment; None if it has none yet, or no directory any more."""
        content = machine.files.read(f"{target.directory}/{RECORD}")
        return cls(**json.loads(content)) if content else None

    def record(self, machine: Machine, target: Target) -> None:
        """Record the scope of a deployment."""
        machine.files.write(f"{target.directory}/{RECORD}", json.dumps(asdict(self)))

    @property
    def socket(self) -> str:
        """The socket that exists while a session's or a private systemd runs."""
        return f"{self.runtime_directory}/{SOCKET}"

    @property
    def links(self) -> str:
        """The directory in which units are linked, which a reboot empties; none is needed for a private systemd."""
        return {"system": SYSTEM_UNITS, "session": f"{self.runtime_directory}/systemd/user", "private": ""}[self.kind]

    def command(self, machine: Machine, target: Target, *words: str) -> Spawn:
        """Return the command that asks this systemd."""
        scope = ("--system",) if self.kind == "system" else ("--user",)
        environment = {"PATH": machine.facts.path_variable, "LC_ALL": "C", "SYSTEMD_PAGER": "", **target.tags}
        if self.runtime_directory:
            environment["XDG_RUNTIME_DIR"] = self.runtime_directory
        return Spawn((machine.files.which("systemctl") or SYSTEMCTL, *scope, *words), environment)


def session_directory() -> str:
    """Return the directory in which the calling user's session has its sockets (pam_systemd(8))."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def own_cgroup(machine: Machine, target: Target) -> str:
    """Return the directory of the control group for a private systemd, which is below that of this process."""
    own = (machine.files.read("/proc/self/cgroup") or b"").decode(errors="surrogateescape")
    mount = next((path for path in CGROUP_MOUNTS if machine.files.exists(f"{path}/cgroup.procs")), CGROUP_MOUNTS[0])
    return f"{mount}{own_group(own)}".rstrip("/") + f"/{prefix(target)}"


def own_group(text: str) -> str:
    """Return the control group of version 2 that ``/proc/PID/cgroup`` names (cgroups(7)); the root without one."""
    return next((line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::")), "/")


def search_path(target: Target, units: str) -> str:
    """Return the only directories in which a private systemd looks for units."""
    return f"{target.directory}/{units}:{target.directory}/{PRIVATE_UNITS}"
