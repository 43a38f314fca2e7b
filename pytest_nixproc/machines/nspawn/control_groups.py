"""Control groups for a throwaway machine: made and removed by us, unless this host's systemd does both."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Final

from pytest_nixproc.errors import WaitTimeout
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.waiting import wait_until

FREE_SECONDS: Final = 10.0


def control_groups(name: str) -> Iterator[str]:
    """Yield the paths of control groups to make under a name: below our own, in the hierarchies that systemd uses.

    None on a host that was booted by systemd: its manager makes them (``Delegate=``, systemd.resource-control(5)).
    """
    if is_booted_by_systemd():
        return
    unified = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    mounts = {"": unified, "name=systemd": "/sys/fs/cgroup/systemd"}
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file.read().splitlines():
            _, kind, path = line.split(":", 2)
            if kind in mounts and os.path.isdir(mounts[kind]):
                yield f"{mounts[kind]}{path.rstrip('/')}/{name}"


def is_booted_by_systemd() -> bool:
    """Tell whether this host was booted by systemd (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def scope() -> tuple[str, ...]:
    """Return the command prefix for a control group of its own (systemd-run); empty on a host without systemd."""
    if not is_booted_by_systemd():
        return ()
    return ("systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes")


def remove_groups(groups: Iterable[str]) -> str:
    """Remove control groups and those below them; return the paths of those that are still in use, as text."""
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
    return ", ".join(group for group in groups if os.path.isdir(group))


def remove_listed_groups(path: str) -> list[str]:
    """Remove the control groups that a file lists, once their last processes have ended; return the problems."""
    try:
        with open(path, encoding="utf-8") as file:
            groups = file.read().split()
    except OSError:
        return []
    with contextlib.suppress(WaitTimeout):
        wait_until(lambda: remove_groups(groups), Host().deadline(FREE_SECONDS), "wait for control groups to be free")
    return [f"control group {group} cannot be removed" for group in groups if os.path.isdir(group)]
