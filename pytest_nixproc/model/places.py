"""Where something of a model was written down: a file and a line, as far as that can be told."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final

PACKAGE: Final = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}{os.sep}"


@dataclass(frozen=True)
class Location:
    """A line of a file; lines count from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        near = os.path.relpath(self.file)
        return f"{self.file if near.startswith(os.pardir) else near}:{self.line}"


def call_site() -> Location | None:
    """Return where the function that asks was called; None when a part of this package has called it.

    Only the frame is looked at, and no source is read: a model makes thousands of instances.
    """
    frame = sys._getframe(2)  # noqa: SLF001 - the only way that takes no time
    file = frame.f_code.co_filename
    return None if file.startswith(PACKAGE) else Location(file, frame.f_lineno)
