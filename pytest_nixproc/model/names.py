"""Names as text: parameters in two spellings, snake_case in Python and camelCase elsewhere, and lists of names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Final

TYPING_ERROR: Final = 0.8
"""How like a known name one has to be that is taken for it where other names are allowed, too."""


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


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return the known name that is most like one, whatever their cases; None where none is like it enough."""
    folded = {candidate.casefold(): candidate for candidate in known}
    found = get_close_matches(name.casefold(), folded, n=1, cutoff=likeness)
    return folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the question whether the nearest known name was meant; an empty text where none is like it."""
    near = nearest(name, known)
    return "" if near is None else f"did you mean {near!r}?"
