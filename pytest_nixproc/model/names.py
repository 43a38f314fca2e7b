"""One parameter, two spellings: snake_case in Python, camelCase in Nix and in configuration files."""

from __future__ import annotations

import re
from functools import cache


@cache
def snake_case(name: str) -> str:
    """Return ``daemon_extra_args`` for ``daemonExtraArgs``; a name in snake_case stays as it is."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def camel_case(name: str) -> str:
    """Return ``daemonExtraArgs`` for ``daemon_extra_args``."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
