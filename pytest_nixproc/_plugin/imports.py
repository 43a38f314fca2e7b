"""How a session imports this package: as any other, and not with its assertions rewritten, which are no tests.

pytest rewrites all modules of a package that has a plugin, to have failing assertions show their values. What it makes
of them is compiled anew in each session that may not write beside them, as in many containers: that took a second.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

PACKAGE = "pytest_nixproc."
REWRITTEN = ("pytest_nixproc.testing.conformance", "pytest_nixproc.testing.privileged")
"""Suites of tests: their assertions are to show values, like those of any test."""


class OwnModules:
    """Finds modules of this package, before pytest looks for them."""

    @staticmethod
    def find_spec(
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG004 - the import system passes it
    ) -> ModuleSpec | None:
        """Return how a module is imported; None for what is not ours, or is to be rewritten."""
        if fullname.startswith(PACKAGE) and not fullname.startswith(REWRITTEN):
            return PathFinder.find_spec(fullname, path)
        return None


sys.meta_path.insert(0, OwnModules)
