"""All classes that hold the suite's tests."""

from __future__ import annotations

from typing import Any, Final

from pytest_nixproc.testing.conformance import ManagerConformance
from pytest_nixproc.testing.privileged import PrivilegedConformance

SUBJECTS: Final[tuple[type[Any], ...]] = (*ManagerConformance.__bases__, PrivilegedConformance)
"""In the order in which a manager meets them."""
