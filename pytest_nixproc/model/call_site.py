"""The file and line of the call that makes a part of a model, as far as they are known."""

from __future__ import annotations

import os
import sys
from typing import Final

from pytest_nixproc.values.location import Location

PACKAGE: Final = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}{os.sep}"


def call_site() -> Location | None:
    """Return where the calling function was called; None when a part of this package has called it.

    Only the frame is looked at, and no source is read: a model makes thousands of instances.
    """
    frame = sys._getframe(2)  # noqa: SLF001 - the only way that takes no time
    file = frame.f_code.co_filename
    return None if file.startswith(PACKAGE) else Location(file, frame.f_lineno)
