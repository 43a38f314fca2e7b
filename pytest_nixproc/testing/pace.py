"""Time limits of tests, which are those of a quiet machine, and grow on a busy one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

FLOOR_SECONDS: Final = 0.02
"""How long a bare interpreter takes to start and end on the machine for which limits are chosen."""


def slowness() -> float:
    """Return how many times slower than on a quiet machine a process starts and ends now; at least 1."""
    begun = time.monotonic()
    for _ in range(3):
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
    return max(1.0, (time.monotonic() - begun) / 3 / FLOOR_SECONDS)


def patient(wait: Callable[[float], bool], seconds: float) -> bool:
    """Wait for some seconds; if that was not enough, wait longer in proportion to :func:`slowness`."""
    return wait(seconds) or wait((slowness() - 1) * seconds)
