"""The subreaper: the process that becomes the parent of orphaned descendants, and so sees their exit statuses."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36  # <linux/prctl.h>
P_PID: Final = 0  # <sys/wait.h>
PROC_REAP_ACQUIRE: Final = 2  # <sys/procctl.h>


def become_subreaper() -> bool:
    """Adopt orphaned descendants from now on (prctl(2), FreeBSD: procctl(2)); False where the system cannot."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    platform: str = sys.platform
    if platform.startswith("linux"):
        return bool(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    if platform.startswith("freebsd"):
        return bool(libc.procctl(P_PID, ctypes.c_int64(0), PROC_REAP_ACQUIRE, None) == 0)
    return False
