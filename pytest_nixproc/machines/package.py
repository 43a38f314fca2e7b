"""The directory that holds this package, for interpreters that it starts and that cannot find it otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PACKAGE_ROOT: Final = str(Path(__file__).parents[2])
