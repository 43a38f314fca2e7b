"""The content of PID files, as the world writes them: with more lines, more words, or NUL up to some length.

The foreground proxy reads them too, so only what a bare interpreter has is imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PID_DIGITS: Final = 10
LARGEST_PID: Final = (1 << 31) - 1
"""The largest number of the type that pids have (``pid_t``); the kernel is not asked about larger ones."""

SHOWN: Final = 60
"""How many bytes of a PID file are quoted."""


def pid_in(content: bytes) -> int | None:
    """Return the pid that the content of a PID file names: the first word of the first line that has one.

    None where that is no number that a process can have; 0 is none: a signal to it would reach our own process group
    (kill(2)).
    """
    words = content.replace(b"\0", b" ").split(None, 1)
    digits = words[0].lstrip(b"0") if words else b""
    pid = int(digits) if digits.isdigit() and len(digits) <= PID_DIGITS else None
    return pid if pid is not None and pid <= LARGEST_PID else None


def described(content: bytes | None) -> str:
    """Return in words what a PID file holds; None stands for one that does not exist."""
    if content is None:
        return "does not exist"
    text = content.strip(b"\0 \t\r\n")
    return f"holds {repr(text[:SHOWN])[1:]}{' and more' if len(text) > SHOWN else ''}" if text else "is empty"
