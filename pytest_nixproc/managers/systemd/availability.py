"""The test whether systemd can be used here, which starts nothing."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from typing import Final

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.systemd.generator import SOCKET
from pytest_nixproc.managers.systemd.launcher import CGROUP_MOUNTS, PROGRAMS
from pytest_nixproc.managers.systemd.scope import own_group, session_directory

CAP_SYS_ADMIN: Final = 21
"""The capability to mount (capabilities(7))."""

NAMESPACE_LIMITS: Final = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
)
"""Settings that keep ordinary users from user namespaces, each with the value that does."""

REMEDY: Final = "run under systemd-run --user --scope -p Delegate=yes, or log in where systemd runs a session"


def unavailable_reason(machine: type[Machine]) -> str:
    """Return why no systemd can be used, with the remedy; an empty text if one can."""
    if machine.throwaway:
        return ""
    if sys.platform != "linux":
        return f"systemd is for Linux, and this is {sys.platform}"
    if not shutil.which("systemctl"):
        return "systemctl is not installed: install systemd"
    if os.geteuid() and session_answers():
        return ""
    return missing_for_own()


def session_answers() -> bool:
    """Tell whether the user's session has a systemd."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(f"{session_directory()}/{SOCKET}")
        except OSError:
            return False
    return True


def missing_for_own() -> str:
    """Return which requirement of a private systemd is missing, or an empty text."""
    if not any(os.access(path, os.X_OK) for path in PROGRAMS):
        return "there is no systemd program where it usually is: install systemd"
    if missing := [name for name in ("unshare", "mount", "setpriv") if not shutil.which(name)]:
        return f"{missing[0]} is not installed: install util-linux"
    return missing_permission() or missing_group()


def missing_permission() -> str:
    """Return why we may not mount in a namespace, or an empty text."""
    if os.geteuid() == 0:
        return "" if holds(CAP_SYS_ADMIN) else "this root may not mount: run the container with CAP_SYS_ADMIN"
    closed = next((path for path, value in NAMESPACE_LIMITS if content_of(path).strip() == value), "")
    there_is_none = "no systemd runs for this user's session, and one of our own needs a user namespace"
    return f"{there_is_none}, which {closed} forbids: have it changed, or log in by ssh or machinectl" if closed else ""


def holds(capability: int) -> bool:
    """Tell whether this process has a capability."""
    masks = (line.split()[1] for line in content_of("/proc/self/status").splitlines() if line.startswith("CapEff:"))
    return bool(int(next(masks, "0"), 16) >> capability & 1)


def missing_group() -> str:
    """Return why no control group can be made below our own, or an empty text.

    systemd keeps its units in such groups.
    """
    mount = next((path for path in CGROUP_MOUNTS if os.path.exists(f"{path}/cgroup.procs")), "")
    if not mount:
        return (
            "no control groups of version 2 are mounted below /sys/fs/cgroup: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        )
    own = f"{mount}{own_group(content_of('/proc/self/cgroup'))}".rstrip("/")
    if os.access(own, os.W_OK) and os.access(f"{own}/cgroup.procs", os.W_OK):
        return ""
    if os.geteuid() == 0:
        return f"the control group {own} cannot be written: run the container with a writable /sys/fs/cgroup"
    return f"no systemd runs for this user's session, and the control group {own} is not the user's: {REMEDY}"


def content_of(path: str) -> str:
    """Return the content of a file of the kernel's below ``/proc``; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
