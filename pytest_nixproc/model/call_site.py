"""The line of a model that makes a part of it, with the calls of the model's own functions below that line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Final

from pytest_nixproc.values.location import Call, Location

PACKAGE: Final = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}{os.sep}"
BEYOND: Final = (f"{os.sep}_pytest{os.sep}", f"{os.sep}pluggy{os.sep}")
"""Parts of the paths of files that call models and tests, and are nobody's model."""

MOST_CALLS: Final = 3
"""How many calls are kept below the outermost line: enough for a constructor of constructors."""


def call_site() -> Location | None:
    """Return where the calling function was called; None when a part of this package has called it.

    Only frames are looked at, and no source is read: a model makes thousands of instances.
    """
    frames = list(frames_of_model(sys._getframe(2)))  # noqa: SLF001 - no other way is as quick
    if not frames:
        return None
    *inner, outermost = frames
    calls = [Call(frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno) for frame in inner[:MOST_CALLS]]
    return Location(outermost.f_code.co_filename, outermost.f_lineno, tuple(reversed(calls)))


def frames_of_model(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that have called it, as far as they are a model's or a test's own."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith((PACKAGE, "<frozen")) or any(part in file for part in BEYOND):
            return
        yield frame
        frame = frame.f_back
