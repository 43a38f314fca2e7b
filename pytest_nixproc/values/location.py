"""The place where a part of a model was written."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """A line of a file."""

    file: str
    line: int
    """Number of the line, from 1."""

    def __str__(self) -> str:
        near = os.path.relpath(self.file)
        return f"{self.file if near.startswith(os.pardir) else near}:{self.line}"
