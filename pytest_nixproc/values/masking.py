"""Masks over secrets: text for people, without the values that nobody is to read there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Final

from pytest_nixproc.values.value import Value

MASK: Final = "********"
SHORTEST: Final = 4
"""How many characters a value, or a line of one, has at least to be looked for: shorter ones are in every text."""


class Secrets(Value):
    """Values that text for people does not show, in whichever way it is written there."""

    values: frozenset[str] = frozenset()

    def with_more(self, values: Iterable[str]) -> Secrets:
        """Return these secrets and more."""
        more = self.values.union(values)
        return self if more == self.values else Secrets(more)

    def masked(self, text: str) -> str:
        """Return a text in which masks stand for the secrets; the longest of them first, as one may hold another."""
        found = {form for value in self.values for form in forms(value) if form in text} if self.values else ()
        for form in sorted(found, key=len, reverse=True):
            text = text.replace(form, MASK)
        return text


def forms(value: str) -> Iterator[str]:
    """Yield the ways in which a value is written: as it is, line by line, and as files and messages quote it."""
    for part in dict.fromkeys((value, *map(str.strip, value.splitlines()))):
        if len(part) >= SHORTEST:
            yield part
            yield from quoted_forms(part)


def quoted_forms(value: str) -> Iterator[str]:
    """Yield a value as Python, JSON, shells, XML and units have it within their quotes."""
    for text in (value, value.replace("%", "%%")):
        yield text
        yield shlex.quote(f" {text}")[2:-1]
        yield text.replace("$", "$$")
        yield text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        yield text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    yield repr(value)[1:-1]
    yield repr(f'"{value}')[2:-1]
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
