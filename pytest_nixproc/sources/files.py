"""Access to files of the machine on which constructors are called."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory
from typing import Final

from pytest_nixproc.model.constructors import ConstructorFiles

LARGEST: Final = 1 << 20
"""How many bytes a file may have that is read for configuration."""


LEFT_BY_PROGRAMS: Final = (".log", ".pid", ".sock", ".lock", ".out", ".err", ".db", ".sqlite")
"""Suffixes of files that an earlier run may have left: such a file is not part of the software."""


def read_text(path: str) -> str | None:
    """Return the text of a regular file; None for anything else, and for a file too large for a configuration."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LARGEST:
            return None
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    return None if "\0" in text else text


def is_software(path: str) -> bool:
    """Tell whether a path is that of an existing file that, judging by its suffix, no program has left behind."""
    return os.path.isfile(path) and not path.endswith(LEFT_BY_PROGRAMS)


FILES: Final = ConstructorFiles(read_text, is_software, TemporaryDirectory)
