"""What the operating system has refused, in words that name the path, the reason, and what to do."""

from __future__ import annotations

import errno
import os

# Not imported from typing: the guardian imports this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

REMEDIES: Final[Mapping[int, str]] = {
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
    errno.EDQUOT: "make room in the quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit of open files (fs.file-max)",
    errno.ENOMEM: "raise the limit of memory (ulimit -v)",
    errno.ENOSPC: "make room there",
    errno.EROFS: "have it mounted writable",
}


def remedy_of(error: OSError, otherwise: str = "") -> str:
    """Return what to do about an error, if its number says it."""
    return REMEDIES.get(error.errno or 0, otherwise)


def in_words(error: OSError) -> str:
    """Return an error as one line."""
    if error.strerror is None:
        return str(error)
    path = error.filename if isinstance(error.filename, str | bytes) else ""
    brief = f"{error.strerror}: {os.fsdecode(path)}" if path else error.strerror
    return f"{brief} ({remedy})" if (remedy := remedy_of(error)) else brief
