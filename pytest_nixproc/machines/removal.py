"""Removal of directories, but never of files that others have mounted in them."""

from __future__ import annotations

import os
import re
import shutil

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.process_table import HAS_PROC, read_facts


def remove_directory(path: str) -> None:
    """Remove a directory with all that is in it; where anything is mounted in it, raise and remove nothing.

    What is mounted is somebody else's data; a bind mount is not even another device.
    """
    real = os.path.realpath(path)
    # The innermost first: in this order they can be unmounted.
    mounts = sorted((point for point in mount_points() if f"{point}/".startswith(f"{real}/")), reverse=True)
    if mounts:
        brief = f"nothing of {path} was removed: something is mounted on {', '.join(mounts)}"
        remedy = f"umount {' '.join(mounts)}, then nixproc reap (or nixproc end, for a kept system)"
        raise MachineError(brief, remedy=remedy)
    shutil.rmtree(path)


def mount_of(path: str) -> str:
    """Return the mount point that a path lies below."""
    real = os.path.realpath(path)
    return max(
        (point for point in mount_points() if f"{real}/".startswith(f"{point.rstrip('/')}/")), key=len, default="/"
    )


def mount_points() -> set[str]:
    """Return the paths at which anything is mounted, as this process sees them."""
    if HAS_PROC:
        points = [line.split(b" ")[4] for line in read_facts("/proc/self/mountinfo").splitlines()]
        # Blanks, line breaks and backslashes are written as octal numbers (proc(5)).
        return {
            os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), point)) for point in points
        }
    import psutil

    return {partition.mountpoint for partition in psutil.disk_partitions(all=True)}
