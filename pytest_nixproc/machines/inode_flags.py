"""Flags of files on Linux that keep everybody, root too, from removing them (ioctl_iflags(2))."""

from __future__ import annotations

import fcntl
import struct
import sys
from typing import Final

from pytest_nixproc.values.value import Value

READ: Final = 2
GET_FLAGS: Final = READ << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
"""The request ``FS_IOC_GETFLAGS``, as most architectures number it; elsewhere, it is an unknown one."""


class Flag(Value):
    """One flag, as chattr(1) calls it."""

    bit: int
    letter: str
    meaning: str


KEEPING: Final = (Flag(0x10, "i", "immutable"), Flag(0x20, "a", "append-only"))


def flag_of(descriptor: int) -> Flag | None:
    """Return the flag that keeps an open file or directory; None if it has none, or its file system knows none."""
    platform: str = sys.platform
    if platform != "linux":
        return None
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, GET_FLAGS, bytes(struct.calcsize("l"))))
    except OSError:
        return None
    return next((flag for flag in KEEPING if flags & flag.bit), None)
