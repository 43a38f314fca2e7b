"""Names as text: parameters in two spellings, snake_case in Python and camelCase elsewhere, and lists of names."""

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


def names_in(text: str) -> list[str]:
    """Split names that are separated by commas into a list; empty ones are left out."""
    return [part.strip() for part in text.split(",") if part.strip()]
