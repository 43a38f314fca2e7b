"""The marker by which a module offers managers, machines, sources or checks to the registry."""

from __future__ import annotations

from typing import Final

import pluggy

PROJECT: Final = "pytest_nixproc"
"""Name of the hooks' project, and of the entry point group that third-party packages use."""

hookimpl: Final = pluggy.HookimplMarker(PROJECT)
